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
from rlhf.feedback.flag_shares import FlagShares, Voice, flag_shares
from rlhf.feedback.protocols import Criterion
from rlhf.feedback.soft_labels import LabelMethod
from rlhf.feedback.votes import last_of_each_rater
from rlhf.records import Comparison, Judgement, LabelledPair, PromptContent, TaskType

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """What rows are made of: the evidence, the raters' pseudonyms, and what the campaign asks.

    `threshold` is the rating above which a completion is a good one; None: the middle of its
    scale.
    """

    evidence: Evidence
    names: Mapping[str, str]
    task: TaskType
    criteria: Sequence[Criterion] = ()
    method: LabelMethod = "votes"
    threshold: float | None = None

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
        row = {"prompt": prompt, "completion": as_turn(prompt, demonstration.completion)}
        made.add(row | source.origin([judgement.id]))
    made.counts["num_empty"] = len(said) - len(made.rows)
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
    shares = shares_of(source, {item: ones for item, ones in flagging.items() if ones})
    for item, ones in voices.items():
        for index in range(len(source.items[item].completions)):
            row = _rated(source, item, index, ones, criteria, flags, shares)
            if row is not None:
                made.add(row)
    return made


def _preference(pair: LabelledPair, source: RowSource, flags: dict[str, list[list[str]]]) -> Row:
    row = {
        "prompt": pair.prompt.content,
        "chosen": as_turn(pair.prompt.content, pair.chosen.text),
        "rejected": as_turn(pair.prompt.content, pair.rejected.text),
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
        for item, each in shares_of(source, flagged(source)).items()
    }


def flagged(source: RowSource) -> dict[str, list[Voice]]:
    """For each item the judgements that flag its completions, or say that nothing is wrong."""
    return source.voices(lambda one: one.flags is not None)


def shares_of(source: RowSource, voices: Mapping[str, Sequence[Voice]]) -> FlagShares:
    """How sure it is that each completion bears each flag, by the source's method."""
    return flag_shares(source.evidence, voices, method=source.method)


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
    values = {name: values_of(voices, name, index) for name in criteria}
    if item not in shares and not any(values.values()):
        return None
    comparison = source.items[item]
    completion = comparison.completions[index]
    row: Row = {
        "prompt": comparison.prompt.content,
        "completion": as_turn(comparison.prompt.content, completion.text),
    }
    if criteria:
        row["ratings"] = {name: mean_of(each) if each else None for name, each in values.items()}
        row["ratings_sd"] = {name: _deviation(each) for name, each in values.items()}
        row["ratings_n"] = {name: len(each) for name, each in values.items()}
    if flags:
        own = shares[item][index] if item in shares else None
        row["flag_shares"] = {flag: None if own is None else own.get(flag, 0.0) for flag in flags}
    row |= {"ended": completion.ended, "source": completion.source, "item": item, "index": index}
    return row | source.origin(one.id for one, _ in voices)


def values_of(voices: Sequence[Voice], criterion: str, index: int) -> list[tuple[float, float]]:
    """What raters gave a completion on a criterion, each with the rater's weight."""
    given = [
        (value, weight)
        for one, weight in voices
        for value in [((one.ratings or {}).get(criterion) or (None,) * (index + 1))[index]]
    ]
    return [(value, weight) for value, weight in given if value is not None]


def mean_of(values: Sequence[tuple[float, float]]) -> float:
    """The mean of values with weights."""
    return sum(value * weight for value, weight in values) / sum(weight for _, weight in values)


def _deviation(values: Sequence[tuple[float, float]]) -> float | None:
    """The standard deviation of values with weights; None for fewer than two.

    With reliability weights: sum(w (x - mean)^2) / (W - sum(w^2) / W), W the sum of the weights;
    for equal weights the usual one, with n - 1.
    """
    if len(values) < 2:
        return None
    mean, whole = mean_of(values), sum(weight for _, weight in values)
    free = whole - sum(weight**2 for _, weight in values) / whole
    return sqrt(sum(weight * (value - mean) ** 2 for value, weight in values) / free)


def as_turn(prompt: PromptContent, text: str) -> PromptContent:
    """A completion in the form of its prompt: text, or one assistant message."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
