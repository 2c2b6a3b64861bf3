"""Rows of single completions out of judgements: with a label each, or to imitate."""

from collections.abc import Mapping
from typing import Any

from rlhf.data.labelling import Labelling
from rlhf.data.losses import DataLosses
from rlhf.errors import DataError
from rlhf.feedback.aggregation import aggregate_evidence
from rlhf.feedback.flag_shares import flag_method
from rlhf.feedback.soft_labels import labels_of
from rlhf.feedback.training_rows import MadeRows, RowSource, as_turn, demonstration_rows
from rlhf.feedback.unpaired_rows import leading_kind, leading_scale, unpaired_rows
from rlhf.records import content_hash

Row = dict[str, Any]
Made = tuple[list[Row], dict[str, Any], DataLosses]


def labelled_completions(
    name: str, source: RowSource, origin: Mapping[str, Any], labelling: Labelling
) -> Made:
    """Rows in TRL's unpaired format, where they came from, and what was left out.

    DataError when no completion can be labelled.
    """
    made, kind = unpaired_rows(source), leading_kind(source)
    losses = _noted(source, made)
    if not made.rows:
        raise DataError(f"{name}: no completion can be labelled: {_why_none(source, made, losses)}")
    made_by = {"labelled_by": kind} | _method_of(source, kind, labelling)
    rows = sorted(made.rows, key=lambda row: (row["item"], row["index"]))
    return rows, {**origin, **made_by, **_labels(rows, source), **made.counts}, losses


def imitated_completions(
    name: str, source: RowSource, origin: Mapping[str, Any], labelling: Labelling
) -> Made:
    """Rows in TRL's prompt-completion format: what raters wrote, and with "all" the chosen sides
    of pairs, each text once for its prompt.

    DataError when there is nothing of the kind.
    """
    rewrites = rewrite_rows(source)
    losses = DataLosses()
    rows = list(rewrites)
    if labelling.rows == "all":
        rows += _chosen_rows(source, labelling)
    once = {content_hash([row["prompt"], row["completion"]]): row for row in reversed(rows)}
    if len(once) < len(rows):
        losses.note("completions that stand there twice, taken once", len(rows) - len(once))
    if not once:
        wanted = "rewrites" if labelling.rows == "rewrites" else "rewrites or chosen completions"
        raise DataError(
            f"{name}: no {wanted} among {len(source.evidence.judgements)} judgements; ask raters "
            "for them (a campaign of the task rewrite), or add --imitate chosen"
        )
    rows = sorted(once.values(), key=lambda row: str(row["item"]))
    made_by = {"imitated": labelling.rows, "num_rewrites": len(rewrites)}
    return rows, {**origin, **made_by, **_labels(rows, source)}, losses


def _method_of(source: RowSource, kind: str | None, labelling: Labelling) -> dict[str, Any]:
    """Which model of the raters made the labels; means of ratings and places have none."""
    if kind == "pairwise" and labelling.method != "votes":
        labels = labels_of(source.evidence, method=labelling.method)
        return {"label_method": labels.method, "why": labels.why}
    if kind == "flags":
        return {"label_method": flag_method(labelling.method)["method"]}
    if kind == "ratings":
        criterion, threshold = leading_scale(source)
        scale = {"rating_criterion": criterion, "rating_threshold": threshold}
        return {"label_method": "votes", **scale}
    return {"label_method": "votes"}


def rewrite_rows(source: RowSource) -> list[Row]:
    """What raters who count wrote, in TRL's prompt-completion format with our columns.

    `rewrite_of` is the index of the completion that it rewrites, None where it was written from
    nothing. A person ends a text where it ends, so `ended` is true.
    """
    rows: list[Row] = []
    numbers: dict[str, int] = {}
    for row in demonstration_rows(source).rows:
        judgement = source.judgements[row["judgement_ids"][0]]
        numbers[judgement.item] = number = numbers.get(judgement.item, 0) + 1
        rows.append(
            row
            | {
                "ended": True,
                "item": f"{judgement.item}#rewrite-{number}",
                "rewrite_of": judgement.rewrite_of,
                "weight": source.evidence.weight(judgement.annotator),
            }
        )
    return rows


def _chosen_rows(source: RowSource, labelling: Labelling) -> list[Row]:
    pairs, _ = aggregate_evidence(source.evidence, method=labelling.method, with_ratings=True)
    return [
        {
            "prompt": pair.prompt.content,
            "completion": as_turn(pair.prompt.content, pair.chosen.text),
            "ended": pair.chosen.ended,
            "item": pair.item,
            **source.origin(pair.judgement_ids),
        }
        for pair in pairs
    ]


def _noted(source: RowSource, made: MadeRows) -> DataLosses:
    losses = DataLosses()
    _, report = aggregate_evidence(source.evidence, method="votes", with_ratings=True)
    kind = leading_kind(source)
    counts = made.counts
    for what, count in (
        ("judgements skipped by their rater", report.num_skipped),
        ("judgements that only check their rater", report.num_checks),
        ("judgements by excluded raters", report.num_excluded),
        ("completions on the middle, left out", counts["num_in_the_middle"]),
        ("pairs with equal votes, left out", counts["num_equal_votes"]),
        ("pairs that most raters call both bad: both labelled false", counts["num_both_bad"]),
        (_LABELLED_BY.get(kind or "", ""), len(made.rows)),
    ):
        if count:
            losses.note(what, count)
    return losses


_LABELLED_BY = {
    "pairwise": "completions labelled by the verdict on their pair: chosen true, rejected false",
    "ranking": "completions labelled by their mean place: true above the middle",
    "ratings": "completions labelled by their mean rating: true above the threshold",
    "flags": "completions labelled by their flags: true where most raters flag nothing",
}


def _why_none(source: RowSource, made: MadeRows, losses: DataLosses) -> str:
    if made.counts["num_without_scale"]:
        return "nothing says what scale its ratings are on; add --rating_threshold"
    if any(one.rewrite for one in source.evidence.judgements) and leading_kind(source) is None:
        return "there are rewrites only, and they are for rlhf sft --imitate rewrites"
    number = len(source.evidence.judgements)
    return f"{number} judgements say nothing of which is good ({losses.summary()}); rate more"


def _labels(rows: list[Row], source: RowSource) -> dict[str, Any]:
    """Which labels these are: their number, the hash of their ids, how many raters gave them."""
    ids = sorted({key for row in rows for key in row["judgement_ids"]})
    raters = {source.judgements[key].annotator: source.judgements[key].simulated for key in ids}
    return {
        "num_labels": len(ids),
        "label_ids_sha256": content_hash(ids),
        "num_annotators": len(raters),
        "num_simulated_annotators": sum(raters.values()),
    }
