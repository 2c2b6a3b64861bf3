"""Judgements from a file into the store: all of them, or none."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rlhf.errors import DataError, RlhfError
from rlhf.feedback.files import read_rows
from rlhf.feedback.interchange import (
    KNOWN_KEYS,
    ParsedRow,
    export_row,
    given_words,
    in_item_order,
    item_by_texts,
    parse_row,
    same_texts,
)
from rlhf.feedback.rules import TASKS, kinds_of
from rlhf.feedback.store import JudgementError, Store
from rlhf.records import Annotator, Comparison, Completion, Judgement, TaskType


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """What an import brought. `unknown_keys` are kept and exported again, and mean nothing here."""

    num_rows: int = 0
    num_new: int = 0
    num_items: int = 0
    num_annotators: int = 0
    num_simulated: int = 0
    campaigns: list[str] = field(default_factory=list)
    renamed: Counter[str] = field(default_factory=Counter)
    unknown_keys: Counter[str] = field(default_factory=Counter)


def import_file(
    store: Store,
    path: Path,
    *,
    campaign: str | None = None,
    task: TaskType | None = None,
    new_items: bool = True,
) -> ImportReport:
    """Put the judgements of a file into the store in one transaction.

    `campaign` overrides the rows' own; a campaign that is not there is made, for `task` or the
    kind that most rows carry. What is there already is left alone, so importing again changes
    nothing. `new_items=False` refuses rows whose comparison the campaign does not hold. Raises
    DataError naming file and line, and then the store is as before.
    """
    return import_rows(store, read_judgements(path, campaign), task=task, new_items=new_items)


def read_judgements(path: Path, campaign: str | None = None) -> list[ParsedRow]:
    """All rows of a judgement file; DataError naming file and line for one that is broken."""
    rows = [parse_row(row, where, campaign=campaign) for where, row in read_rows(path)]
    if not rows:
        raise DataError(f"{path}: no judgements in it; give a file of judgement rows")
    return rows


def import_rows(
    store: Store,
    rows: Sequence[ParsedRow],
    *,
    task: TaskType | None = None,
    new_items: bool = True,
) -> ImportReport:
    """Put judgements that were read into the store in one transaction: see `import_file`."""
    report = ImportReport(num_rows=len(rows))
    by_campaign: dict[str, list[ParsedRow]] = defaultdict(list)
    for row in rows:
        by_campaign[row.judgement.campaign].append(row)
        named = row.row.get("campaign")
        if named is not None and named != row.judgement.campaign:
            report.renamed[named] += 1
        report.unknown_keys.update(key for key in row.row if key not in KNOWN_KEYS)
    with store.atomically():
        for name, its_rows in by_campaign.items():
            _import_campaign(store, name, its_rows, task, new_items, report)
    report.campaigns = list(by_campaign)
    return report


def _import_campaign(
    store: Store,
    name: str,
    rows: list[ParsedRow],
    task: TaskType | None,
    new_items: bool,
    report: ImportReport,
) -> None:
    _make_campaign(store, name, rows, task)
    items = _Items(store.comparisons(name))
    known = {one.id: one for one in store.judgements(name, current_only=False)}
    judged: dict[str, tuple[ParsedRow, Judgement]] = {}
    for row in rows:
        said = _placed(row, items, known, new_items)
        if said.id in known and said != known[said.id]:
            raise DataError(
                f"{row.where}: judgement {said.id!a} is in campaign {name!a} and says something "
                f"else ({_difference(said, known[said.id])}); give it another id"
            )
        earlier = judged.setdefault(said.id, (row, said))
        if earlier[1] != said:
            raise DataError(
                f"{row.where}: id {said.id!a} stands at {earlier[0].where} for another judgement; "
                "give each its own id"
            )
    report.num_items += store.add_comparisons(name, items.new)
    report.num_annotators += _add_annotators(store, rows)
    given = {}
    for key, (row, said) in judged.items():
        words = given_words(row.row, export_row(said, items.by_name[said.item]))
        if words is not None:
            given[key] = words
    try:
        report.num_new += store.record((said for _, said in judged.values()), given=given)
    except JudgementError as error:
        where = judged[error.judgement_id][0].where
        raise DataError(f"{where}: {error}") from None
    report.num_simulated += sum(said.simulated for _, said in judged.values())


class _Items:
    """The items of a campaign, found by name or by what they hold."""

    def __init__(self, comparisons: Iterable[Comparison]):
        self.by_name: dict[str, Comparison] = {}
        self._new: dict[str, Comparison] = {}
        self._by_texts: dict[str, list[Comparison]] = defaultdict(list)
        for comparison in comparisons:
            self._put(comparison)

    def named(self, comparison: Comparison, where: str) -> Comparison | None:
        """The item of that name; DataError when it holds something else."""
        found = self.by_name.get(comparison.item)
        if found is not None and not same_texts(found, comparison):
            raise DataError(
                f"{where}: item {comparison.item!a} has another prompt or completions in the "
                "campaign or above; give this one another item name"
            )
        return found

    def holding(self, comparison: Comparison) -> Comparison | None:
        """The item with these texts: the one there is, or of several the unnamed one."""
        name = item_by_texts(comparison)
        found = self._by_texts[name]
        return found[0] if len(found) == 1 else self.by_name.get(name)

    @property
    def new(self) -> list[Comparison]:
        return list(self._new.values())

    def add(self, comparison: Comparison) -> Comparison:
        """Make an item of a row's comparison."""
        self._new[comparison.item] = comparison
        self._put(comparison)
        return comparison

    def complete(self, item: Comparison, comparison: Comparison) -> None:
        """Fill what a new item does not know of its completions from a later row about it."""
        if item.item not in self._new:
            return  # what is in the store stays as it is
        known = {one.text: one for one in comparison.completions}
        parts = tuple(_completed(one, known[one.text]) for one in item.completions)
        if parts != item.completions:
            self._new[item.item] = self.by_name[item.item] = replace(item, completions=parts)
            listed = self._by_texts[item_by_texts(item)]
            listed[:] = [self.by_name[one.item] for one in listed]

    def _put(self, comparison: Comparison) -> None:
        self.by_name[comparison.item] = comparison
        self._by_texts[item_by_texts(comparison)].append(comparison)


def _placed(
    row: ParsedRow, items: _Items, known: dict[str, Judgement], new_items: bool
) -> Judgement:
    """The row's judgement on the item that it belongs to, which is made when there is none."""
    stored = known.get(row.judgement.id)
    if stored is not None and not row.named_item:
        # An import that is repeated meets the item it made, though others have joined since
        row = replace(row, comparison=replace(row.comparison, item=stored.item), named_item=True)
    if row.named_item:
        item = items.named(row.comparison, row.where)
    else:
        item = items.holding(row.comparison)
    if item is None:
        if not new_items:
            raise DataError(
                f"{row.where}: the campaign has no such comparison (prompt and completions); "
                "rate the completions that were sampled"
            )
        item = items.add(row.comparison)
    items.complete(item, row.comparison)
    return in_item_order(row, item)


def _difference(one: Judgement, other: Judgement) -> str:
    """The names of the fields in which two judgements differ."""
    names = [each.name for each in fields(one)]
    return ", ".join(name for name in names if getattr(one, name) != getattr(other, name))


def _completed(one: Completion, other: Completion) -> Completion:
    return replace(
        one,
        source=other.source if one.source is None else one.source,
        ended=other.ended if one.ended is None else one.ended,
        seed=other.seed if one.seed is None else one.seed,
    )


def _make_campaign(
    store: Store, name: str, rows: Sequence[ParsedRow], task: TaskType | None
) -> None:
    """Make the campaign, or widen one that an import made to the kinds of these rows."""
    counts = Counter(kind for row in rows for kind in kinds_of(row.judgement))
    there = {campaign.name: campaign for campaign in store.campaigns()}.get(name)
    if there is None:
        task = task or _most_common(counts)
        kinds = sorted({task, *counts})
        paired = all(len(row.comparison.completions) == 2 for row in rows)
        plain = kinds == [task] and (paired or task != "pairwise")
        settings: dict[str, Any] = asked_of(rows) if plain else {"kinds": kinds, **asked_of(rows)}
        store.create_campaign(name, task=task, overlap=_raters_per_item(rows), settings=settings)
        return
    if task is not None and task != there.task:
        raise DataError(f"campaign {name!r} is {there.task}, not {task}; choose another --campaign")
    if "kinds" in there.settings:
        kinds = sorted({*there.kinds, *counts})
        if kinds != sorted(there.kinds):
            store.change_settings(name, {**there.settings, "kinds": kinds})


def asked_of(rows: Iterable[ParsedRow]) -> dict[str, Any]:
    """The criteria and flags in some rows as a campaign's settings, so that it can be rated here.

    A criterion's scale is the usual one that holds its values: 1 to 5, 0 to 4 and so on; where
    none does, the criteria are left out.
    """
    values: dict[str, set[float]] = defaultdict(set)
    flags: set[str] = set()
    for row in rows:
        for name, given in (row.judgement.ratings or {}).items():
            values[name] |= {value for value in given if value is not None}
        flags |= {flag for one in row.judgement.flags or () for flag in one}
    asked: dict[str, Any] = {}
    scales = {name: _scale(given) for name, given in sorted(values.items())}
    if values and all(scales.values()) and all(map(_plain, values)):
        asked["criteria"] = [
            {"name": name, "title": name, "low": scale[0], "high": scale[1]}
            for name, scale in scales.items()
            if scale is not None
        ]
    if flags and all(map(_plain, flags)):
        asked["flags"] = [{"name": flag, "label": flag} for flag in sorted(flags)]
    return asked


_SCALES = ((0, 1), (1, 5), (0, 4), (0, 5), (1, 7), (1, 10), (0, 9))


def _scale(values: set[float]) -> tuple[int, int] | None:
    """The first of the usual scales that holds all of the values."""
    return next(
        (scale for scale in _SCALES if all(scale[0] <= value <= scale[1] for value in values)),
        None,
    )


def _plain(name: str) -> bool:
    return bool(name.strip()) and name.isprintable()


def _most_common(counts: Counter[str]) -> TaskType:
    return max(TASKS, key=lambda task: counts[task])  # of equals the first: pairwise


def _raters_per_item(rows: Iterable[ParsedRow]) -> int:
    raters = defaultdict(set)
    for row in rows:
        raters[row.comparison.item].add(row.judgement.annotator)
    return max(len(names) for names in raters.values())


def _add_annotators(store: Store, rows: Iterable[ParsedRow]) -> int:
    before = len(store.annotators())
    seen: set[tuple[str, bool]] = set()
    for row in rows:
        rater = row.judgement.annotator, row.judgement.simulated
        if rater in seen:
            continue
        seen.add(rater)
        try:
            store.add_annotator(Annotator(name=rater[0], simulated=rater[1]))
        except RlhfError as error:
            raise DataError(f"{row.where}: {error}") from None
    return len(store.annotators()) - before
