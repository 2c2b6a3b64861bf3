"""Judgements out of the store: as they are, or as what trainers read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf.errors import DataError
from rlhf.feedback.aggregation import AggregationReport, aggregate, demonstrations
from rlhf.feedback.files import write_rows
from rlhf.feedback.interchange import export_row
from rlhf.feedback.rules import problem_with
from rlhf.feedback.store import Store
from rlhf.manifest import file_sha256, make_folder, write_json
from rlhf.records import Comparison, Judgement, LabelledPair, PromptContent, content_hash

FORMATS = ("judgements", "preference", "demonstrations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Rows for a file, the ids of the judgements behind them, and what was left out."""

    rows: list[dict[str, Any]]
    judgement_ids: list[str]
    simulated: bool
    report: AggregationReport | None = None


def export_file(store: Store, campaign: str, path: Path, *, format_name: str) -> dict[str, Any]:
    """Write a campaign's judgements to `path` and a manifest beside it; returns the manifest.

    Raises DataError, with nothing written, when the campaign has nothing of that format.
    """
    makers = {
        "judgements": judgement_rows,
        "preference": preference_rows,
        "demonstrations": demonstration_rows,
    }
    export = makers[format_name](store, campaign)
    if not export.rows:
        raise DataError(
            f"{store.location}: campaign {campaign!r} has nothing to export as {format_name}; "
            "collect ratings first"
        )
    make_folder(path.parent)
    write_rows(path, export.rows)
    manifest = {
        "store": store.location,
        "campaign": campaign,
        "format": format_name,
        "file": path.name,
        "sha256": file_sha256(path),
        "num_rows": len(export.rows),
        "num_judgements": len(set(export.judgement_ids)),
        "judgement_ids_sha256": ids_hash(export.judgement_ids),
        "simulated": export.simulated,
    }
    if export.report is not None:
        manifest["counts"] = export.report.as_dict()
    write_json(manifest_path(path), manifest)
    return manifest


def manifest_path(path: Path) -> Path:
    """Where the manifest of an exported file lies: `F.jsonl` -> `F.jsonl.manifest.json`."""
    return path.with_name(path.name + ".manifest.json")


def ids_hash(judgement_ids: Iterable[str]) -> str:
    """One hash for a set of judgements: the sha256 of their sorted ids."""
    return content_hash(sorted(set(judgement_ids)))


def judgement_rows(store: Store, campaign: str) -> Export:
    """Every judgement, superseded ones too, in the interchange format."""
    items, judgements = _judged(store, campaign, current_only=False)
    given = store.given(campaign)
    return Export(
        rows=[export_row(one, items[one.item], given.get(one.id)) for one in judgements],
        judgement_ids=[one.id for one in judgements],
        simulated=any(one.simulated for one in judgements),
    )


def frozen_rows(store: Store, campaign: str) -> list[dict[str, Any]]:
    """What stands in a campaign, skips among it, as rows that can be imported by themselves.

    Without what was superseded or taken back, hence without `supersedes`. In the order of the
    items and, within one, of the raters' names; every value refers to the item's own order of
    completions, whatever an imported line said.
    """
    items, judgements = _judged(store, campaign)
    places = {item: place for place, item in enumerate(items)}
    said = sorted(  # stable: of several by one rater the last stays the last
        judgements, key=lambda one: (places[one.item], one.annotator)
    )
    return [export_row(replace(one, supersedes=None), items[one.item]) for one in said]


def preference_rows(store: Store, campaign: str) -> Export:
    """The labelled pairs in TRL's preference format, raters pseudonymised.

    `chosen` and `rejected` are messages where the prompt is, text where it is text.
    """
    items, judgements = _judged(store, campaign)
    pairs, report = aggregate(items.values(), judgements)
    names = pseudonyms(judgements)
    raters = {one.id: names[one.annotator] for one in judgements}
    return Export(
        rows=[_preference(pair, raters) for pair in pairs],
        judgement_ids=[key for pair in pairs for key in pair.judgement_ids],
        simulated=any(pair.simulated for pair in pairs),
        report=report,
    )


def demonstration_rows(store: Store, campaign: str) -> Export:
    """What raters wrote themselves in TRL's prompt-completion format, raters pseudonymised."""
    items, judgements = _judged(store, campaign)
    written = list(demonstrations(items.values(), judgements))
    names = pseudonyms(judgements)
    rows = [
        {
            "prompt": demonstration.prompt.content,
            "completion": _as_turn(demonstration.prompt.content, demonstration.completion),
            "judgement_ids": [judgement.id],
            "raters": [names[judgement.annotator]],
            "simulated": judgement.simulated,
        }
        for demonstration, judgement in written
    ]
    return Export(
        rows=rows,
        judgement_ids=[judgement.id for _, judgement in written],
        simulated=any(judgement.simulated for _, judgement in written),
    )


def pseudonyms(judgements: Sequence[Judgement]) -> dict[str, str]:
    """Names for raters that say who is who within one export, and nothing outside it.

    They are numbered, not hashed: the hash of a guessable name is no secret.
    """
    names: dict[str, str] = {}
    for judgement in judgements:
        kind = "simulated" if judgement.simulated else "rater"
        names.setdefault(judgement.annotator, f"{kind}-{len(names) + 1}")
    return names


def _judged(
    store: Store, campaign: str, *, current_only: bool = True
) -> tuple[dict[str, Comparison], list[Judgement]]:
    """The items of a campaign by name, and its judgements; DataError where they do not fit."""
    items = {one.item: one for one in store.comparisons(campaign)}
    judgements = store.judgements(campaign, current_only=current_only)
    for judgement in judgements:
        item = items.get(judgement.item)
        problem = "its item is gone" if item is None else problem_with(judgement, item)
        if problem is not None:
            raise DataError(
                f"{store.location}: damaged store: judgement {judgement.id!a}: {problem}; "
                "`rlhf feedback check` tells more"
            )
    return items, judgements


def _preference(pair: LabelledPair, raters: dict[str, str]) -> dict[str, Any]:
    return {
        "prompt": pair.prompt.content,
        "chosen": _as_turn(pair.prompt.content, pair.chosen.text),
        "rejected": _as_turn(pair.prompt.content, pair.rejected.text),
        "p_chosen": pair.p_chosen,
        "margin": pair.margin,
        "chosen_ended": pair.chosen.ended,
        "rejected_ended": pair.rejected.ended,
        "chosen_source": pair.chosen.source,
        "rejected_source": pair.rejected.source,
        "item": pair.item,
        "judgement_ids": list(pair.judgement_ids),
        "raters": [raters[key] for key in pair.judgement_ids],
        "simulated": pair.simulated,
    }


def _as_turn(prompt: PromptContent, text: str) -> PromptContent:
    """A completion in the form of its prompt: text, or one assistant message."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
