"""Single completions with a label each, out of whatever raters said of them.

TRL's unpaired preference format, with how sure a label is (`p_label`) and what it counts
(`weight`) beside it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from rlhf.feedback.aggregation import aggregate_evidence
from rlhf.feedback.flag_shares import Voice, flag_method
from rlhf.feedback.rated_pairs import criteria_of
from rlhf.feedback.rules import TASKS, kinds_of
from rlhf.feedback.soft_labels import ADJUDICATED_P, smoothed_share
from rlhf.feedback.training_rows import (
    MadeRows,
    Row,
    RowSource,
    as_turn,
    flagged,
    mean_of,
    shares_of,
    values_of,
)
from rlhf.records import Comparison, Judgement, TaskType

_EQUAL = 1e-9


def unpaired_rows(source: RowSource) -> MadeRows:
    """Single completions with a `label`, true for a good one, in TRL's unpaired format.

    The rule follows what raters said of the item:
    verdicts: the chosen one of a labelled pair is good and the rejected one is not; where more
    than half say that both are bad, neither is; ranking: good above the middle rank, on average;
    ratings: by the campaign's first criterion, good above the source's threshold (the middle of
    the scale unless given), on average; flags: good where less than half of the raters flag
    anything, or where the model of raters finds every flag less likely than not. What falls on
    the middle is left out.

    `p_label` is how likely the label is right: of a verdict the pair's p_chosen, else the share
    of the raters who by themselves would say the same (half of one who is on the middle), drawn
    towards 1/2 as shares of votes are, or `ADJUDICATED_P`. `weight` is that times the mean
    weight of the raters.
    """
    made = MadeRows()
    kind = leading_kind(source)
    if kind is not None:
        _RULES[kind](source, made)
        made.counts[f"num_by_{kind}"] = len(made.rows)
    return made


def leading_kind(source: RowSource) -> TaskType | None:
    """By what kind of answer completions get their labels: the campaign's own, where it has any."""
    said = Counter(kind for one in source.evidence.judgements for kind in kinds_of(one))
    order = [source.task, *(task for task in TASKS if task != source.task)]
    return next((task for task in order if task in _RULES and said[task]), None)


def _unpair_verdicts(source: RowSource, made: MadeRows) -> None:
    both_bad = {
        item: ones
        for item, ones in source.voices(lambda one: one.verdict is not None).items()
        if sum(w for one, w in ones if one.both_bad) > sum(w for _, w in ones) / 2
    }
    pairs, report = aggregate_evidence(source.evidence, method=source.method)
    for name, number in report.as_dict().items():
        made.counts[name] = number
    for pair in pairs:
        if pair.item in both_bad:
            continue
        item = source.items.get(pair.item) or source.items[pair.item.rpartition("#")[0]]
        for completion, label in ((pair.chosen, True), (pair.rejected, False)):
            index = next(i for i, one in enumerate(item.completions) if one == completion)
            row = _row(source, item, index, label, pair.judgement_ids)
            made.add(_sure(row, pair.p_chosen, pair.weight))
    for name, ones in both_bad.items():
        bad = [(float(one.both_bad), weight) for one, weight in ones]
        for index in range(2):
            row = _row(source, source.items[name], index, False, [one.id for one, _ in ones])
            made.add(_sure(row, _share(bad, ones), _mean_weight(ones)))
    made.counts["num_both_bad"] = len(both_bad)


def _unpair_rankings(source: RowSource, made: MadeRows) -> None:
    for item, ones in source.voices(lambda one: one.ranking is not None).items():
        count = len(source.items[item].completions)
        middle = (count + 1) / 2
        for index in range(count):
            # places, not ranks: of 1, 1, 3 the first two share the places 1 and 2
            leads = [
                (middle - _place(one.ranking or (), index), weight) for one, weight in ones
            ]  # fmt: skip
            _add_labelled(source, made, item, index, leads, ones)


def _unpair_ratings(source: RowSource, made: MadeRows) -> None:
    criterion, threshold = leading_scale(source)
    if threshold is None:
        made.counts["num_without_scale"] = len(source.voices(lambda one: one.ratings is not None))
        return
    says = source.voices(lambda one: criterion in (one.ratings or {}))
    for item, ones in says.items():
        for index in range(len(source.items[item].completions)):
            rated = [one for one in ones if values_of([one], criterion, index)]
            leads = [
                (value - threshold, weight) for value, weight in values_of(ones, criterion, index)
            ]
            if leads:
                _add_labelled(source, made, item, index, leads, rated)


def leading_scale(source: RowSource) -> tuple[str, float | None]:
    """The criterion that ratings are labelled by, and the rating above which one is good.

    The campaign's first criterion, or the first that judgements name; None where neither the
    source nor a scale of the campaign says the threshold.
    """
    if source.criteria:
        leading = source.criteria[0]
        middle = (leading.low + leading.high) / 2
        return leading.name, middle if source.threshold is None else source.threshold
    rated = [one for one in source.evidence.judgements if one.ratings]
    return next(iter(criteria_of(rated)), ""), source.threshold


def _unpair_flags(source: RowSource, made: MadeRows) -> None:
    voices = flagged(source)
    shares = shares_of(source, voices)
    by_votes = flag_method(source.method)["method"] == "votes"
    for item, ones in voices.items():
        for index in range(len(source.items[item].completions)):
            if by_votes:  # of any flag: raters may differ in which one
                leads = [(0.5 - float(bool((one.flags or ())[index])), w) for one, w in ones]
                _add_labelled(source, made, item, index, leads, ones)
                continue
            bad = max(shares[item][index].values(), default=0.0)
            _add_labelled(source, made, item, index, [(0.5 - bad, 1.0)], ones, max(bad, 1 - bad))


def _add_labelled(
    source: RowSource,
    made: MadeRows,
    item: str,
    index: int,
    leads: Sequence[tuple[float, float]],
    voices: Sequence[Voice],
    p_label: float | None = None,
) -> None:
    """Label a completion by the sign of its mean lead over the middle, one lead (with its weight)
    for each of `voices`; on the middle it is left out.
    """
    lead = mean_of(leads)
    if abs(lead) < _EQUAL:
        made.counts["num_in_the_middle"] += 1
        return
    row = _row(source, source.items[item], index, lead > 0, [one.id for one, _ in voices])
    agreeing = [(_side(one * lead), weight) for one, weight in leads]
    share = _share(agreeing, voices) if p_label is None else p_label
    made.add(_sure(row, share, _mean_weight(voices)))


def _side(product: float) -> float:
    """1 for a rater on the label's side, 0 for one on the other, half for one on the middle."""
    return 0.5 if abs(product) < _EQUAL else float(product > 0)


def _share(agreeing: Sequence[tuple[float, float]], voices: Sequence[Voice]) -> float:
    """How likely a label is right that so much of its raters' weight is for."""
    if any(_decides(one) for one, _ in voices):
        return ADJUDICATED_P
    return smoothed_share(sum(yes * weight for yes, weight in agreeing),
                          sum(weight for _, weight in agreeing))  # fmt: skip


def _decides(judgement: Judgement) -> bool:
    return judgement.purpose == "adjudication"


def _mean_weight(voices: Sequence[Voice]) -> float:
    return sum(weight for _, weight in voices) / len(voices)


def _sure(row: Row, p_label: float, rater_weight: float) -> Row:
    return row | {"p_label": p_label, "weight": p_label * rater_weight}


def _row(
    source: RowSource, item: Comparison, index: int, label: bool, judgement_ids: Iterable[str]
) -> Row:
    completion = item.completions[index]
    return {
        "prompt": item.prompt.content,
        "completion": as_turn(item.prompt.content, completion.text),
        "label": label,
        "p_label": None,
        "weight": None,
        "ended": completion.ended,
        "source": completion.source,
        "item": item.item,
        "index": index,
        **source.origin(judgement_ids),
    }


def _place(ranks: Sequence[int], index: int) -> float:
    """The place of a completion among its ranks, 1 first; equal ones share the mean of theirs."""
    before = sum(rank < ranks[index] for rank in ranks)
    equal = sum(rank == ranks[index] for rank in ranks)
    return before + (equal + 1) / 2


_RULES: dict[TaskType, Callable[[RowSource, MadeRows], None]] = {
    "pairwise": _unpair_verdicts,
    "ranking": _unpair_rankings,
    "ratings": _unpair_ratings,
    "flags": _unpair_flags,
}
