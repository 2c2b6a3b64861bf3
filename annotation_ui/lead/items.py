"""The item browser: find items by what became of them, and see all that was said of one."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from annotation_ui.bodies import Body
from annotation_ui.form import form_of
from annotation_ui.lead.item_view import excerpt, judgement_rows, texts_of
from annotation_ui.lead.replies import reply
from annotation_ui.lead.reports import Reports
from rlhf.errors import ConfigError
from rlhf.feedback.protocols import recorded_protocol
from rlhf.feedback.quality import disagreements
from rlhf.feedback.store import Store
from rlhf.records import Comparison, Judgement

STATES = ("open", "complete", "disagreed", "gold", "flagged", "skipped")
"""What an item can be asked for; several may hold of one."""

PAGE_SIZE = 50


class GoldBody(Body):
    """What is expected of a gold item, in the order of its completions; null: no gold item."""

    campaign: str
    item: str
    expected: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemLine:
    """One item in the list: how many have judged it, and which of `STATES` hold.

    `text` is what a search looks in.
    """

    item: str
    excerpt: str
    num_completions: int
    text: str
    purpose: str
    num_raters: int
    states: frozenset[str]


def routes(store: Store, reports: Reports) -> APIRouter:
    """The routes of the item browser."""
    router = APIRouter(prefix="/api/lead/items")

    @router.get("")
    def list_items(
        campaign: str,
        state: str = "all",
        search: str = Query("", max_length=400),
        offset: int = Query(0, ge=0),
    ) -> JSONResponse:
        def work() -> dict[str, Any]:
            overlap = store.campaign(campaign).overlap
            lines = reports.get("items", campaign, lambda: item_lines(store, campaign))
            found = found_items(lines, state=state, search=search, offset=offset)
            return {**found, "overlap": overlap}

        return reply(work)

    @router.get("/one")
    def one_item(campaign: str, item: str) -> JSONResponse:
        return reply(lambda: item_page(store, campaign, item))

    @router.post("/gold")
    def set_gold(body: GoldBody) -> JSONResponse:
        def work() -> dict[str, Any]:
            store.set_gold(body.campaign, body.item, body.expected)
            reports.forget(body.campaign)
            return item_page(store, body.campaign, body.item)

        return reply(work)

    return router


def found_items(
    lines: Sequence[ItemLine], *, state: str = "all", search: str = "", offset: int = 0
) -> dict[str, Any]:
    """A page of the items in that state whose texts or name hold every word searched for."""
    if state not in ("all", *STATES):
        raise ConfigError(f"no state {state!r}; there are all, {', '.join(STATES)}")
    words = search.casefold().split()
    matching = [line for line in lines if all(word in line.text for word in words)]
    counts = Counter(name for line in matching for name in line.states)
    chosen = [line for line in matching if state == "all" or state in line.states]
    page = chosen[offset : offset + PAGE_SIZE]
    return {
        "counts": {"all": len(matching), **{name: counts[name] for name in STATES}},
        "total": len(chosen),
        "offset": offset,
        "page_size": PAGE_SIZE,
        "items": [_line_json(line) for line in page],
    }


def item_lines(store: Store, campaign: str) -> list[ItemLine]:
    """Every item of a campaign, in the order in which items are given out."""
    purposes = store.purposes(campaign)
    by_item = _by_item(store.judgements(campaign))
    disputed = {one.item for one in disagreements(store, campaign)}
    overlap = store.campaign(campaign).overlap
    lines = []
    for comparison in store.comparisons(campaign):
        rows = by_item.get(comparison.item, [])
        purpose = purposes.get(comparison.item, "rate")
        num_raters = len({row.annotator for row in rows if _is_answer(row)})
        states = set(_states_of(rows))
        if purpose == "rate":
            states.add("complete" if num_raters >= overlap else "open")
        elif purpose == "gold":
            states.add("gold")
        if comparison.item in disputed:
            states.add("disagreed")
        lines.append(
            ItemLine(
                item=comparison.item,
                excerpt=excerpt(comparison.prompt),
                num_completions=len(comparison.completions),
                text=_searched_text(comparison),
                purpose=purpose,
                num_raters=num_raters,
                states=frozenset(states),
            )
        )
    return lines


def _is_answer(row: Judgement) -> bool:
    return row.skip is None and row.purpose not in ("adjudication", "retest")


def _states_of(rows: Iterable[Judgement]) -> Iterable[str]:
    for row in rows:
        if row.skip is not None:
            yield "skipped"
        if any(row.flags or ()):
            yield "flagged"


def _by_item(judgements: Iterable[Judgement]) -> Mapping[str, list[Judgement]]:
    rows: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        rows[judgement.item].append(judgement)
    return rows


def _searched_text(comparison: Comparison) -> str:
    """Name, prompt and completions in one, whatever their case."""
    content = comparison.prompt.content
    turns = [content] if isinstance(content, str) else [turn["content"] for turn in content]
    texts = [comparison.item, *turns, *(one.text for one in comparison.completions)]
    return "\n".join(texts).casefold()


def _line_json(line: ItemLine) -> dict[str, Any]:
    return {
        "item": line.item,
        "excerpt": line.excerpt,
        "num_completions": line.num_completions,
        "num_raters": line.num_raters,
        "purpose": line.purpose,
        "states": sorted(line.states),
    }


def item_page(store: Store, campaign: str, item: str) -> dict[str, Any]:
    """One item: its texts, every judgement with its history, and whether it is a gold item."""
    found = store.campaign(campaign)
    comparison = store.comparison(campaign, item)
    rows = [row for row in store.judgements(campaign, current_only=False) if row.item == item]
    withdrawn = withdrawn_adjudications(store, campaign, rows)
    protocol = recorded_protocol(found.task, found.settings)
    names = [one.item for one in store.comparisons(campaign)]
    at = names.index(item)
    return {
        "item": item,
        "position": at + 1,
        "num_items": len(names),
        "before": names[at - 1] if at else None,
        "after": names[at + 1] if at + 1 < len(names) else None,
        "purpose": store.purposes(campaign).get(item, "rate"),
        "expected": store.gold(campaign).get(item),
        "overlap": found.overlap,
        "form": form_of(protocol),
        "judgements": judgement_rows(rows, protocol, withdrawn=withdrawn),
        **texts_of(comparison),
    }


def withdrawn_adjudications(
    store: Store, campaign: str, rows: Iterable[Judgement]
) -> frozenset[str]:
    """Of these rows the ids of leads' answers that no longer decide."""
    in_force = {one.judgement_id for one in store.adjudications(campaign)}
    own = {row.id for row in rows if row.purpose == "adjudication"}
    return frozenset(own - in_force)
