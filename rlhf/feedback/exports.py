"""Judgements out of the store: as they are, or as what trainers read, with where they came from."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError, DataError, nearest_hint
from rlhf.feedback.evidence import Evidence, read_evidence
from rlhf.feedback.files import WRITABLE, check_writable, rows_as_bytes, write_rows
from rlhf.feedback.flag_shares import flag_method
from rlhf.feedback.interchange import export_row
from rlhf.feedback.protocols import protocol_of
from rlhf.feedback.rules import problem_with
from rlhf.feedback.soft_labels import METHODS, LabelMethod, labels_of
from rlhf.feedback.store import Campaign, Store
from rlhf.feedback.training_rows import (
    MadeRows,
    RowSource,
    demonstration_rows,
    preference_rows,
    ranking_rows,
    rated_rows,
)
from rlhf.feedback.unpaired_rows import unpaired_rows
from rlhf.manifest import file_sha256, make_folder, write_json
from rlhf.records import Comparison, Judgement, PromptContent, content_hash

_TRAINING: dict[str, Callable[[RowSource], MadeRows]] = {
    "preference": preference_rows,
    "unpaired": unpaired_rows,
    "ranking": ranking_rows,
    "demonstrations": demonstration_rows,
    "rated": rated_rows,
}
FORMATS = ("judgements", *_TRAINING)
_PAIRED = ("preference", "ranking", "unpaired")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Rows for a file, the ids of the judgements behind them, and what was left out."""

    format_name: str
    rows: list[dict[str, Any]]
    judgement_ids: list[str]
    counts: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def make_export(
    store: Store, campaign: str, format_name: str, *, method: LabelMethod = "votes"
) -> Export:
    """A campaign's judgements in one of `FORMATS`; `method` says how votes become labels.

    Raises ConfigError for an unknown format, DataError when there is nothing of that format.
    """
    if format_name not in FORMATS:
        hint = nearest_hint(format_name, FORMATS)
        raise ConfigError(f"no format {format_name!r}{hint}; there are {', '.join(FORMATS)}")
    if method not in METHODS:
        raise ConfigError(f"no method {method!r} of labelling{nearest_hint(method, METHODS)}")
    found = store.campaign(campaign)
    if format_name == "judgements":
        export = _judgements(store, found)
    else:
        export = _training(store, found, format_name, method)
    if not export.rows:
        raise DataError(
            f"{store.location}: campaign {campaign!r} has nothing to export as {format_name}; "
            "collect ratings first"
        )
    return export


def export_file(
    store: Store,
    campaign: str,
    path: Path,
    *,
    format_name: str,
    method: LabelMethod = "votes",
) -> dict[str, Any]:
    """Write a campaign's judgements to `path` and a manifest beside it; returns the manifest.

    Raises DataError, with nothing written, when the campaign has nothing of that format.
    """
    check_writable(path)
    export = make_export(store, campaign, format_name, method=method)
    make_folder(path.parent)
    write_rows(path, _uniform(export.rows, path.name))
    manifest = manifest_of(export, path.name, file_sha256(path))
    write_json(manifest_path(path), manifest)
    return manifest


def export_bytes(
    store: Store,
    campaign: str,
    format_name: str,
    suffix: str,
    *,
    method: LabelMethod = "votes",
) -> tuple[str, bytes, dict[str, Any]]:
    """The name and content of an exported file, and its manifest: nothing is written.

    `suffix` is one of `.jsonl`, `.jsonl.gz`, `.json` and `.parquet`.
    """
    if suffix not in WRITABLE:
        raise ConfigError(f"no suffix {suffix!r}; there are {', '.join(WRITABLE)}")
    export = make_export(store, campaign, format_name, method=method)
    plain = "".join(one if one.isalnum() or one in "-_" else "-" for one in campaign)
    name = f"{plain}-{format_name}{suffix}"
    content = rows_as_bytes(_uniform(export.rows, name), suffix)
    return name, content, manifest_of(export, name, sha256(content).hexdigest())


def manifest_of(export: Export, file_name: str, digest: str) -> dict[str, Any]:
    """What lies beside an exported file: how it came to be, down to the ids of the judgements."""
    ids = sorted(set(export.judgement_ids))
    return {
        **export.provenance,
        "format": export.format_name,
        "file": file_name,
        "sha256": digest,
        "num_rows": len(export.rows),
        "num_judgements": len(ids),
        "judgement_ids_sha256": ids_hash(ids),
        "counts": export.counts,
        "judgement_ids": ids,
    }


def manifest_path(path: Path) -> Path:
    """Where the manifest of an exported file lies: `F.jsonl` -> `F.jsonl.manifest.json`."""
    return path.with_name(path.name + ".manifest.json")


def ids_hash(judgement_ids: Iterable[str]) -> str:
    """One hash for a set of judgements: the sha256 of their sorted ids."""
    return content_hash(sorted(set(judgement_ids)))


def frozen_rows(store: Store, campaign: str) -> list[dict[str, Any]]:
    """What stands in a campaign, skips among it, as rows that can be imported by themselves.

    Without what was superseded or taken back, hence without `supersedes`; without raters who
    are excluded, and without adjudications that are in force no longer. In the order of the
    items and, within one, of the raters' names; every value refers to the item's own order of
    completions, whatever an imported line said.
    """
    evidence = read_evidence(store, campaign)
    items = {one.item: one for one in evidence.comparisons}
    _check_whole(store, items, evidence.judgements)
    in_force = {one.id for one in evidence.deciding.values()}
    standing = [
        one
        for one in evidence.judgements
        if (one.id in in_force if one.purpose == "adjudication" else evidence.weight(one.annotator))
    ]
    places = {item: place for place, item in enumerate(items)}
    said = sorted(  # stable: of several by one rater the last stays the last
        standing, key=lambda one: (places[one.item], one.annotator)
    )
    return [export_row(replace(one, supersedes=None), items[one.item]) for one in said]


def pseudonyms(judgements: Sequence[Judgement]) -> dict[str, str]:
    """Names for raters that say who is who within one export, and nothing outside it.

    They are numbered, not hashed: the hash of a guessable name is no secret.
    """
    names: dict[str, str] = {}
    for judgement in judgements:
        kind = "simulated" if judgement.simulated else "rater"
        names.setdefault(judgement.annotator, f"{kind}-{len(names) + 1}")
    return names


def _judgements(store: Store, campaign: Campaign) -> Export:
    """Every judgement, superseded ones and checks of raters too, in the interchange format."""
    judgements = store.judgements(campaign.name, current_only=False)
    items = {one.item: one for one in store.comparisons(campaign.name)}
    _check_whole(store, items, judgements)
    given = store.given(campaign.name)
    ids = [one.id for one in judgements]
    evidence = Evidence(comparisons=list(items.values()), judgements=judgements)
    return Export(
        format_name="judgements",
        rows=[export_row(one, items[one.item], given.get(one.id)) for one in judgements],
        judgement_ids=ids,
        provenance=_provenance(store, campaign, evidence, ids),
    )


def _training(store: Store, campaign: Campaign, format_name: str, method: LabelMethod) -> Export:
    source = row_source(store, campaign, method=method)
    evidence = source.evidence
    made = _TRAINING[format_name](source)
    provenance = _provenance(store, campaign, evidence, made.judgement_ids)
    if format_name in _PAIRED:
        provenance["label_method"] = _label_method(evidence, method)
    if _rests_on_flags(made):
        provenance["flag_method"] = flag_method(method)
    return Export(
        format_name=format_name,
        rows=made.rows,
        judgement_ids=made.judgement_ids,
        counts=dict(made.counts),
        provenance=provenance,
    )


def row_source(
    store: Store,
    campaign: Campaign,
    *,
    method: LabelMethod = "votes",
    threshold: float | None = None,
) -> RowSource:
    """What a campaign's rows are made of; DataError when the store is damaged."""
    evidence = read_evidence(store, campaign.name)
    _check_whole(store, {one.item: one for one in evidence.comparisons}, evidence.judgements)
    settings = {key: campaign.settings[key] for key in ("criteria",) if key in campaign.settings}
    return RowSource(
        evidence=evidence,
        names=pseudonyms(evidence.judgements),
        task=campaign.task,
        criteria=protocol_of("pairwise", settings).criteria,
        method=method,
        threshold=threshold,
    )


def _label_method(evidence: Evidence, method: LabelMethod) -> dict[str, str]:
    """The model that made the labels, and why that one."""
    if method == "votes":
        return {"method": "votes", "why": "asked for"}
    labels = labels_of(evidence, method=method)
    return {"method": labels.method, "why": labels.why}


def _rests_on_flags(made: MadeRows) -> bool:
    columns = {name for row in made.rows[:1] for name in row}
    return bool({"chosen_flags", "flag_shares"} & columns) or "num_by_flags" in made.counts


def _provenance(
    store: Store, campaign: Campaign, evidence: Evidence, judgement_ids: Iterable[str]
) -> dict[str, Any]:
    """Whose judgements, under which guideline, and what leads decided about them."""
    used = set(judgement_ids)
    behind = [one for one in evidence.judgements if one.id in used]
    names = pseudonyms(evidence.judgements)
    said = Counter(one.annotator for one in behind)
    simulated = evidence.simulated
    return {
        "store": store.location,
        "campaign": campaign.name,
        "task": campaign.task,
        "simulated": any(one.simulated for one in behind),
        "raters": [
            {
                "name": names[name],
                "simulated": simulated[name],
                "num_judgements": number,
                "weight": evidence.weight(name),
            }
            for name, number in said.items()
        ],
        "guideline_versions": _guideline_versions(store, campaign, behind),
        "num_raters_excluded": sum(weight == 0 for weight in evidence.weights.values()),
        "num_raters_down_weighted": sum(0 < weight < 1 for weight in evidence.weights.values()),
        "num_items_adjudicated": len(evidence.deciding),
    }


def _guideline_versions(
    store: Store, campaign: Campaign, judgements: Iterable[Judgement]
) -> list[dict[str, Any]]:
    """The guidelines that the judgements were made under, each by its hash; None is unknown."""
    counts = Counter(one.guideline_version for one in judgements)
    hashes = {version: content_hash(text) for version, text, _ in store.guidelines(campaign.name)}
    return [
        {
            "version": version,
            "sha256": None if version is None else hashes.get(version),
            "num_judgements": counts[version],
        }
        for version in sorted(counts, key=lambda one: -1 if one is None else one)
    ]


def _check_whole(
    store: Store, items: dict[str, Comparison], judgements: Iterable[Judgement]
) -> None:
    for judgement in judgements:
        item = items.get(judgement.item)
        problem = "its item is gone" if item is None else problem_with(judgement, item)
        if problem is not None:
            raise DataError(
                f"{store.location}: damaged store: judgement {judgement.id!a}: {problem}; "
                "`rlhf feedback check` tells more"
            )


_TEXTS = ("prompt", "chosen", "rejected", "completion")


def _uniform(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The rows as one table: a Parquet column holds texts or messages, not some of each."""
    kinds = {isinstance(row["prompt"], str) for row in rows}
    if not name.endswith(".parquet") or len(kinds) < 2:
        return rows
    return [
        row | {key: _as_messages(row[key], key) for key in _TEXTS if key in row} for row in rows
    ]


def _as_messages(content: PromptContent, key: str) -> PromptContent:
    role = "user" if key == "prompt" else "assistant"
    return [{"role": role, "content": content}] if isinstance(content, str) else content
