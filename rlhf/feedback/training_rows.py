"""Rows that trainers read, made of a campaign's evidence: TRL's formats, raters pseudonymised.

Labels come from ordinary judgements of raters who count, and from adjudications, which alone
decide their items.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import sqrt
from typing import Any

from rlhf.feedback.aggregation import aggregate_evidence, demonstrations
from rlhf.feedback.evidence import Evidence
from rlhf.feedback.flag_shares import FlagShares, Voice, flag_method, flag_shares
from rlhf.feedback.protocols import Criterion
from rlhf.feedback.rules import TASKS, kinds_of
from rlhf.feedback.soft_labels import LabelMethod
from rlhf.feedback.votes import last_of_each_rater
from rlhf.records import Comparison, Judgement, LabelledPair, PromptContent, TaskType

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """What rows are made of: the evidence, the raters' pseudonyms, and what the campaign asks."""

    evidence: Evidence
    names: Mapping[str, str]
    task: TaskType
    criteria: Sequence[Criterion] = ()
    method: LabelMethod = "votes"

    @cached_property
    def items(self) -> dict[str, Comparison]:
        """The items by name."""
        return {one.item: one for one in self.evidence.comparisons}

    @cached_property
    def judgements(self) -> dict[str, Judgement]:
        """The judgements by id."""
        return {one.id: one for one in self.evidence.judgements}

    def voices(self, says: Callable[[Judgement], bool]) -> dict[str, list[Voice]]:
        """For each item the judgements that count and say something of this kind, with weights.

        An adjudicator's is the only one on their item.
        """
        deciding = {item: one for item, one in self.evidence.deciding.items() if says(one)}
        counted = last_of_each_rater(
            one for one in self.evidence.counted if one.skip is None and says(one)
        )
        voices: dict[str, list[Voice]] = defaultdict(list)
        for one in counted:
            if one.item not in deciding:
                voices[one.item].append((one, self.evidence.weight(one.annotator)))
        voices |= {item: [(one, 1.0)] for item, one in deciding.items()}
        return {item: voices[item] for item in self.items if item in voices}

    def origin(self, judgement_ids: Iterable[str]) -> Row:
        """The columns that say on whose judgements a row rests."""
        ids = list(judgement_ids)
        behind = [self.judgements[key] for key in ids]
        return {
            "judgement_ids": ids,
            "raters": [self.names[one.annotator] for one in behind],
            "simulated": any(one.simulated for one in behind),
        }


@dataclass(slots=True, kw_only=True)
class MadeRows:
    """Rows, the ids of the judgements behind them, and counts of what was left out and why."""

    rows: list[Row] = field(default_factory=list)
    judgement_ids: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Keep a row with the judgements that it names."""
        self.rows.append(row)
        self.judgement_ids += row["judgement_ids"]


def preference_rows(source: RowSource) -> MadeRows:
    """The labelled pairs in TRL's preference format, with `p_chosen` and `margin`.

    `chosen` and `rejected` are messages where the prompt is, text where it is text. Where raters
    flag completions, `chosen_flags` and `rejected_flags` hold those that most of them ticked,
    or that the model of raters finds likelier than not.
    """
    pairs, report = aggregate_evidence(source.evidence, method=source.method)
    flags = _flags_of_most(source)
    made = MadeRows(counts=Counter(report.as_dict()))
    for pair in pairs:
        made.add(_preference(pair, source, flags))
    return made


def ranking_rows(source: RowSource) -> MadeRows:
    """Rankings as the pairs that they hold, in the preference format with a `group`.

    The group is the prompt: all pairs of one prompt stand together and share it, so that a
    trainer can keep them on one side of a split and in one batch (Ouyang et al. 2022, 3.5).
    """
    ranked = [one for one in source.evidence.judgements if one.ranking is not None]
    evidence = replace(source.evidence, judgements=ranked)
    made = preference_rows(replace(source, evidence=evidence))
    prompts = {one.item: one.prompt.id for one in source.evidence.comparisons}
    for row in made.rows:
        row["group"] = prompts[row["item"].rpartition("#")[0] or row["item"]]
    places = {
        group: place for place, group in enumerate(dict.fromkeys(r["group"] for r in made.rows))
    }
    made.rows.sort(key=lambda row: places[row["group"]])
    return made


def demonstration_rows(source: RowSource) -> MadeRows:
    """What raters wrote themselves in TRL's prompt-completion format."""
    made = MadeRows()
    voices = source.voices(lambda one: one.rewrite is not None)
    said = {one.id for ones in voices.values() for one, _ in ones}
    standing = [one for one in source.evidence.judgements if one.id in said]
    for demonstration, judgement in demonstrations(source.evidence.comparisons, standing):
        prompt = demonstration.prompt.content
        row = {"prompt": prompt, "completion": _as_turn(prompt, demonstration.completion)}
        made.add(row | source.origin([judgement.id]))
    made.counts["num_empty"] = len(said) - len(made.rows)
    return made


def unpaired_rows(source: RowSource) -> MadeRows:
    """Single completions with a `label`, true for a good one, in TRL's unpaired format.

    The rule follows what raters said of the item:
    verdicts: the chosen one of a labelled pair is good and the rejected one is not; where more
    than half say that both are bad, neither is; ranking: good above the middle rank, on average;
    ratings: by the campaign's first criterion, good above the middle of its scale, on average;
    flags: good where less than half of the raters flag anything, or where the model of raters
    finds every flag less likely than not. What falls on the middle is left out.
    """
    made = MadeRows()
    rules: dict[TaskType, Callable[[RowSource, MadeRows], None]] = {
        "pairwise": _unpair_verdicts,
        "ranking": _unpair_rankings,
        "ratings": _unpair_ratings,
        "flags": _unpair_flags,
    }
    said = Counter(kind for one in source.evidence.judgements for kind in kinds_of(one))
    order = [source.task, *(task for task in TASKS if task != source.task)]
    kind = next((task for task in order if task in rules and said[task]), None)
    if kind is not None:
        rules[kind](source, made)
        made.counts[f"num_by_{kind}"] = len(made.rows)
    return made


def rated_rows(source: RowSource) -> MadeRows:
    """A row for each rated completion: mean, standard deviation and number for each criterion.

    Where raters flag completions, `flag_shares` holds the share of them that ticked each flag,
    or how likely the model of raters finds it.
    """
    made = MadeRows()
    voices = source.voices(lambda one: one.ratings is not None or one.flags is not None)
    said = [one for ones in voices.values() for one, _ in ones]
    criteria = sorted({name for one in said for name in one.ratings or {}})
    flags = sorted({flag for one in said for each in one.flags or () for flag in each})
    flagging = {item: [(one, w) for one, w in ones if one.flags is not None]
                for item, ones in voices.items()}  # fmt: skip
    shares = _flag_shares(source, {item: ones for item, ones in flagging.items() if ones})
    for item, ones in voices.items():
        for index in range(len(source.items[item].completions)):
            row = _rated(source, item, index, ones, criteria, flags, shares)
            if row is not None:
                made.add(row)
    return made


def _preference(pair: LabelledPair, source: RowSource, flags: dict[str, list[list[str]]]) -> Row:
    row = {
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
        **source.origin(pair.judgement_ids),
    }
    if flags:
        item = pair.item if pair.item in source.items else pair.item.rpartition("#")[0]
        texts = [one.text for one in source.items[item].completions]
        each = flags.get(item, [[] for _ in texts])
        row["chosen_flags"] = each[texts.index(pair.chosen.text)]
        row["rejected_flags"] = each[texts.index(pair.rejected.text)]
    return row


def _flags_of_most(source: RowSource) -> dict[str, list[list[str]]]:
    """For each item and completion the flags whose share is more than half."""
    return {
        item: [sorted(flag for flag, share in one.items() if share > 0.5) for one in each]
        for item, each in _flag_shares(source, _flagged(source)).items()
    }


def _flagged(source: RowSource) -> dict[str, list[Voice]]:
    return source.voices(lambda one: one.flags is not None)


def _flag_shares(source: RowSource, voices: Mapping[str, Sequence[Voice]]) -> FlagShares:
    return flag_shares(source.evidence, voices, method=source.method)


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
            made.add(_labelled(source, item, index, label, pair.judgement_ids, pair.p_chosen))
    for name, ones in both_bad.items():
        for index in range(2):
            ids = [one.id for one, _ in ones]
            made.add(_labelled(source, source.items[name], index, False, ids))
    made.counts["num_both_bad"] = len(both_bad)


def _unpair_rankings(source: RowSource, made: MadeRows) -> None:
    for item, ones in source.voices(lambda one: one.ranking is not None).items():
        count = len(source.items[item].completions)
        middle = (count + 1) / 2
        for index in range(count):
            # places, not ranks: of 1, 1, 3 the first two share the places 1 and 2
            mean = _mean([(_place(one.ranking or (), index), weight) for one, weight in ones])
            _add_labelled(source, made, item, index, middle - mean, ones)


def _unpair_ratings(source: RowSource, made: MadeRows) -> None:
    if not source.criteria:
        made.counts["num_without_scale"] = len(source.voices(lambda one: one.ratings is not None))
        return
    leading = source.criteria[0]
    middle = (leading.low + leading.high) / 2
    says = source.voices(lambda one: leading.name in (one.ratings or {}))
    for item, ones in says.items():
        for index in range(len(source.items[item].completions)):
            values = _values(ones, leading.name, index)
            if values:
                _add_labelled(source, made, item, index, _mean(values) - middle, ones)


def _unpair_flags(source: RowSource, made: MadeRows) -> None:
    voices = _flagged(source)
    shares = _flag_shares(source, voices)
    by_votes = flag_method(source.method)["method"] == "votes"
    for item, ones in voices.items():
        for index in range(len(source.items[item].completions)):
            if by_votes:  # of any flag: raters may differ in which one
                bad = _mean([(float(bool((one.flags or ())[index])), w) for one, w in ones])
            else:
                bad = max(shares[item][index].values(), default=0.0)
            _add_labelled(source, made, item, index, 0.5 - bad, ones)


def _add_labelled(
    source: RowSource,
    made: MadeRows,
    item: str,
    index: int,
    lead: float,
    voices: Sequence[Voice],
) -> None:
    """Label a completion by the sign of its lead over the middle; on the middle it is left out."""
    if abs(lead) < 1e-9:
        made.counts["num_in_the_middle"] += 1
        return
    ids = [one.id for one, _ in voices]
    made.add(_labelled(source, source.items[item], index, lead > 0, ids))


def _labelled(
    source: RowSource,
    item: Comparison,
    index: int,
    label: bool,
    judgement_ids: Iterable[str],
    p_label: float | None = None,
) -> Row:
    completion = item.completions[index]
    return {
        "prompt": item.prompt.content,
        "completion": _as_turn(item.prompt.content, completion.text),
        "label": label,
        "p_label": p_label,
        "ended": completion.ended,
        "source": completion.source,
        "item": item.item,
        "index": index,
        **source.origin(judgement_ids),
    }


def _rated(
    source: RowSource,
    item: str,
    index: int,
    voices: Sequence[Voice],
    criteria: Sequence[str],
    flags: Sequence[str],
    shares: FlagShares,
) -> Row | None:
    """What raters say of one completion; None when they rate and flag nothing of it."""
    values = {name: _values(voices, name, index) for name in criteria}
    if item not in shares and not any(values.values()):
        return None
    comparison = source.items[item]
    completion = comparison.completions[index]
    row: Row = {
        "prompt": comparison.prompt.content,
        "completion": _as_turn(comparison.prompt.content, completion.text),
    }
    if criteria:
        row["ratings"] = {name: _mean(each) if each else None for name, each in values.items()}
        row["ratings_sd"] = {name: _deviation(each) for name, each in values.items()}
        row["ratings_n"] = {name: len(each) for name, each in values.items()}
    if flags:
        own = shares[item][index] if item in shares else None
        row["flag_shares"] = {flag: None if own is None else own.get(flag, 0.0) for flag in flags}
    row |= {"ended": completion.ended, "source": completion.source, "item": item, "index": index}
    return row | source.origin(one.id for one, _ in voices)


def _values(voices: Sequence[Voice], criterion: str, index: int) -> list[tuple[float, float]]:
    """What raters gave a completion on a criterion, each with the rater's weight."""
    given = [
        (value, weight)
        for one, weight in voices
        for value in [((one.ratings or {}).get(criterion) or (None,) * (index + 1))[index]]
    ]
    return [(value, weight) for value, weight in given if value is not None]


def _mean(values: Sequence[tuple[float, float]]) -> float:
    """The mean of values with weights."""
    return sum(value * weight for value, weight in values) / sum(weight for _, weight in values)


def _deviation(values: Sequence[tuple[float, float]]) -> float | None:
    """The standard deviation of values with weights; None for fewer than two.

    With reliability weights: sum(w (x - mean)^2) / (W - sum(w^2) / W), W the sum of the weights;
    for equal weights the usual one, with n - 1.
    """
    if len(values) < 2:
        return None
    mean, whole = _mean(values), sum(weight for _, weight in values)
    free = whole - sum(weight**2 for _, weight in values) / whole
    return sqrt(sum(weight * (value - mean) ** 2 for value, weight in values) / free)


def _place(ranks: Sequence[int], index: int) -> float:
    """The place of a completion among its ranks, 1 first; equal ones share the mean of theirs."""
    before = sum(rank < ranks[index] for rank in ranks)
    equal = sum(rank == ranks[index] for rank in ranks)
    return before + (equal + 1) / 2


def _as_turn(prompt: PromptContent, text: str) -> PromptContent:
    """A completion in the form of its prompt: text, or one assistant message."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
