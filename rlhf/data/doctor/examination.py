"""One examination: what the stage's own reading lost, and what the rows that are left look like."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlhf.data.columns import Columns
from rlhf.data.doctor.catalogue import KINDS, loss_of, note_of
from rlhf.data.doctor.duplicates import find_duplicates, find_leaks, find_near_duplicates
from rlhf.data.doctor.findings import Example, Finding, Tally, brief, example
from rlhf.data.doctor.roles import find_wrong_roles
from rlhf.data.doctor.scripts import find_scripts
from rlhf.data.doctor.texts import Row, find_private_rows
from rlhf.data.doctor.tokens import find_in_texts, find_in_tokens
from rlhf.data.losses import DataLosses
from rlhf.data.sources import LoadedDataset
from rlhf.data.tokenization import Renderer

_MAX_SHOWN = 50  # characters of each column of a lost row


@dataclass(frozen=True, slots=True)
class Side:
    """The rows that a stage trains on, or measures on, beside their token ids (when it has any)."""

    rows: Sequence[Row] = ()
    columns: Columns = field(default_factory=list)


def examine(
    datasets: Sequence[LoadedDataset],
    train: Side,
    heldout: Side,
    renderer: Renderer,
    context: int | None = None,
) -> list[Finding]:
    """All findings on what was read (`datasets`, with what they lost) and what is left of it.

    `context` is how many tokens the model can read. Every check but that for near-duplicates
    reads all rows; that one compares MAX_COMPARED at most, and says when it left some out.
    """
    findings = [one for dataset in datasets for one in lost_rows(dataset)]
    cut = {place for dataset in datasets for place in _cut_places(dataset.losses)}
    return findings + _of_rows(train, heldout, renderer, cut, context) + _twice(train, heldout)


def lost_rows(dataset: LoadedDataset) -> list[Finding]:
    """A finding for each kind of loss that reading `dataset` counted, and for each of its notes."""
    losses = dataset.losses
    texts = dict(zip(dataset.places, dataset.rows, strict=True))
    kinds: dict[str, list[tuple[str, str, int]]] = {}
    for how, counted in (("dropped", losses.dropped), ("cut", losses.cut)):
        for reason, count in counted.items():
            kinds.setdefault(loss_of(reason)[0], []).append((how, reason, count))
    findings = [
        _loss(dataset, name, [(how, why, n) for how, why, n in parts], texts)
        for name, parts in kinds.items()
    ]
    for what, count in losses.noted.items():
        if (named := note_of(what)) is not None:
            name, kind = named
            places = losses.places.get(what, [])
            findings.append(
                Finding(
                    name=name,
                    severity=kind.severity,
                    count=count,
                    share=_share(count, losses.num_rows),
                    words=kind.words,
                    advice=kind.advice,
                    data=dataset.name,
                    examples=_examples(places, texts),
                )
            )
    return findings


def _loss(
    dataset: LoadedDataset,
    name: str,
    parts: Sequence[tuple[str, str, int]],
    texts: dict[str, dict[str, object]],
) -> Finding:
    """One finding of the reasons that share a name; a row has one reason only."""
    losses = dataset.losses
    places = [place for _, reason, _ in parts for place in losses.places.get(reason, [])]
    count = sum(count for _, _, count in parts)
    hows = {how for how, _, _ in parts}
    reasons = "; ".join(
        f"{reason} ({n})" if len(parts) > 1 else reason for _, reason, n in parts[:4]
    )
    more = f" and {len(parts) - 4} more reasons" if len(parts) > 4 else ""
    return Finding(
        name=name,
        severity="loss",
        count=count,
        share=_share(count, losses.num_rows),
        words=f"rows {' or '.join(sorted(hows, reverse=True))}: {reasons}{more}",
        advice=loss_of(parts[0][1])[1],
        data=dataset.name,
        examples=_examples(places, texts),
        places=tuple(places),
    )


def _of_rows(
    train: Side, heldout: Side, renderer: Renderer, cut: set[str], context: int | None
) -> list[Finding]:
    """The findings that a row shows by itself, of both sides together."""
    rows = [*train.rows, *heldout.rows]
    tally = Tally(len(rows))
    # A held-out transcript over the context is cut when it is scored, and so counted as lost.
    for side, limit in ((train, context), (heldout, None)):
        if side.columns:
            find_in_tokens(side.rows, side.columns, renderer, cut, limit, tally)
    find_in_texts(rows, renderer.tokenizer, tally)
    find_wrong_roles(rows, tally)
    find_scripts(rows, tally)
    find_private_rows(rows, tally)
    return _findings(tally, "all rows")


def _twice(train: Side, heldout: Side) -> list[Finding]:
    """Repetitions within the training rows, and held-out rows that are trained on."""
    within, across = Tally(len(train.rows)), Tally(len(heldout.rows))
    find_duplicates(train.rows, within)
    num_compared = find_near_duplicates(train.rows, within)
    find_leaks(train.rows, heldout.rows, across)
    all_rows = len(train.rows)
    among = f" (sought among {num_compared} of {all_rows})" if num_compared < all_rows else ""
    return [
        *_findings(within, "training rows", among),
        *_findings(across, "held-out rows", among),
    ]


def _findings(tally: Tally, data: str, among: str = "") -> list[Finding]:
    """The tally's findings, with the words of the catalogue."""
    return [
        Finding(
            name=name,
            severity=KINDS[name].severity,
            count=count,
            share=_share(count, tally.num_rows),
            words=KINDS[name].words + (among if name.startswith("near") else ""),
            advice=KINDS[name].advice,
            data=data,
            examples=tuple(tally.examples[name]),
        )
        for name, count in tally.counts.items()
    ]


def _examples(places: Sequence[str], texts: dict[str, dict[str, object]]) -> tuple[Example, ...]:
    """The first few places with the beginning of what stands there."""
    return tuple(example(place, _row_text(texts.get(place, {}))) for place in places[:3])


def _row_text(row: dict[str, object]) -> str:
    """The columns of a row that hold its texts, each cut short."""
    parts = []
    for column in ("prompt", "chosen", "rejected", "completion", "messages"):
        if column in row:
            value = row[column]
            shown = value if isinstance(value, str) else repr(value)[:2000]
            parts.append(f"{column}: {brief(shown, _MAX_SHOWN)}")
    return " | ".join(parts)


def _cut_places(losses: DataLosses) -> list[str]:
    return [place for reason in losses.cut for place in losses.places.get(reason, [])]


def _share(count: int, num_rows: int) -> float:
    return round(count / num_rows, 6) if num_rows else 0.0
