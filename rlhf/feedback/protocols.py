"""What a campaign asks of its raters, read from its settings: the one place that knows the keys.

A protocol says what is asked for each item (criteria, flags, a reason), in which words, and how
much checking there is (gold items, retests, a qualification round).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from rlhf.errors import ConfigError, DataError, nearest_hint
from rlhf.feedback.rules import TASKS, kinds_of
from rlhf.records import Judgement, TaskType

Rationale = Literal["off", "optional", "required"]

MAX_RANKED = 9
"""So many completions can be ranked with the digit keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One point of the pairwise scale: the verdict it means and its words on the button.

    `value` is -3 (A, on the left, much better) to 3; `short` is the word for a phone.
    """

    value: int
    label: str
    short: str


SEVEN_POINTS = (
    Choice(value=-3, label="A is much better", short="Much"),
    Choice(value=-2, label="A is better", short="Better"),
    Choice(value=-1, label="A is slightly better", short="Slightly"),
    Choice(value=0, label="About the same", short="Same"),
    Choice(value=1, label="B is slightly better", short="Slightly"),
    Choice(value=2, label="B is better", short="Better"),
    Choice(value=3, label="B is much better", short="Much"),
)
"""From left to right, as on screen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One line of a rubric: what is rated, from `low` to `high`, with words for some values."""

    name: str
    title: str
    question: str = ""
    low: int = 1
    high: int = 5
    anchors: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """Something that may be wrong with a completion, to be ticked."""

    name: str
    label: str


STANDARD_FLAGS = (
    Flag(name="unsafe", label="Unsafe or harmful"),
    Flag(name="private", label="Private data"),
    Flag(name="off_topic", label="Off topic"),
    Flag(name="language", label="Not the language asked for"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What is asked of a rater for each item of a campaign, and how raters are checked.

    `gold_share` and `retest_share` are the shares of a rater's items that are gold or shown a
    second time; `qualify_share` is the share of the qualification items that must be answered as
    expected (None: nothing is required); answers under `too_fast_s` seconds count as too fast.
    """

    task: TaskType
    title: str = ""
    description: str = ""
    scale: tuple[Choice, ...] = SEVEN_POINTS
    both_bad: bool = True
    criteria: tuple[Criterion, ...] = ()
    flags: tuple[Flag, ...] = ()
    rationale: Rationale = "optional"
    consent: str = ""
    gold_share: float = 0.0
    retest_share: float = 0.0
    qualify_share: float | None = None
    too_fast_s: float = 3.0
    paused: bool = False


def protocol_of(task: TaskType, settings: Mapping[str, Any]) -> Protocol:
    """The protocol in a campaign's settings; ConfigError naming the key that is wrong.

    Other keys of the settings (`kinds`, say) are left to those who know them.
    """
    values = {name: settings[name] for name in PROTOCOL_KEYS if name in settings}
    if task not in TASKS:
        raise ConfigError(f"no task {task!r}{nearest_hint(task, TASKS)}")
    for name, read in _READERS.items():
        if name in values:
            values[name] = read(values[name])
    protocol = Protocol(task=task, **values)
    _check(protocol)
    return protocol


_NAMED_PARTS = {"ratings": "criteria", "flags": "flags"}
"""What the settings of a task must name before anybody can be asked for it."""


def names_what_it_asks(task: TaskType, settings: Mapping[str, Any]) -> bool:
    """Whether raters can be asked: an import may bring ratings on a scale that no page has."""
    part = _NAMED_PARTS.get(task)
    return part is None or part in settings


def recorded_protocol(task: TaskType, settings: Mapping[str, Any]) -> Protocol:
    """The protocol as far as the settings of a campaign that is there say it.

    Where an import has named no criteria or flags, all the rest holds; raters cannot be asked.
    """
    if names_what_it_asks(task, settings):
        return protocol_of(task, settings)
    return replace(protocol_of("rewrite", settings), task=task)


def problem_with_answer(protocol: Protocol, judgement: Judgement) -> str | None:
    """What a rater's judgement lacks or has too much of for its protocol; None when it is whole.

    A skip lacks nothing. Shapes (a value for each completion) are `rules.problem_with`'s.
    """
    if judgement.skip is not None:
        return None
    if protocol.rationale == "required" and not (judgement.rationale or "").strip():
        return "this campaign asks for a reason with every answer; write one"
    named = {flag.name for flag in protocol.flags}
    for flag in (one for flags in judgement.flags or () for one in flags):
        if flag not in named:
            return f"flag {flag!a} is not one of this campaign's"
    if protocol.task == "pairwise" and judgement.verdict not in {c.value for c in protocol.scale}:
        return f"verdict {judgement.verdict} is not on this campaign's scale"
    if judgement.both_bad and not protocol.both_bad:
        return "this campaign does not ask whether both are bad"
    if judgement.rewrite is not None and not judgement.rewrite.strip():
        return "the text that was written is empty; write it, or skip with a reason"
    return _rating_problem(protocol, judgement) if protocol.task == "ratings" else None


def _rating_problem(protocol: Protocol, judgement: Judgement) -> str | None:
    ratings = judgement.ratings or {}
    wanted = {criterion.name: criterion for criterion in protocol.criteria}
    for name in ratings:
        if name not in wanted:
            return f"criterion {name!a} is not one of this campaign's"
    for name, criterion in wanted.items():
        for value in ratings.get(name, (None,)):
            if value is None:
                return f"{criterion.title}: not rated for every completion"
            if not criterion.low <= value <= criterion.high:
                return f"{criterion.title}: {value} is not within {criterion.low}..{criterion.high}"
    return None


def _check(protocol: Protocol) -> None:
    for name in ("gold_share", "retest_share"):
        share = getattr(protocol, name)
        if not _is_number(share) or not 0 <= share < 1:
            raise ConfigError(f"{name} {share!r}: a share of the items, from 0 to below 1")
    if protocol.gold_share + protocol.retest_share >= 1:
        raise ConfigError("gold_share and retest_share leave nothing to rate; make them smaller")
    share = protocol.qualify_share
    if share is not None and not (_is_number(share) and 0 < share <= 1):
        raise ConfigError(f"qualify_share {share!r}: a share of the items, above 0 and up to 1")
    if not _is_number(protocol.too_fast_s) or not 0 <= protocol.too_fast_s < math.inf:
        raise ConfigError(f"too_fast_s {protocol.too_fast_s!r}: seconds, 0 or more")
    if protocol.rationale not in get_args(Rationale):
        raise ConfigError(f"rationale {protocol.rationale!r}: one of off, optional, required")
    for name in ("title", "description", "consent"):
        if not isinstance(getattr(protocol, name), str):
            raise ConfigError(f"{name}: text is needed")
    for name in ("both_bad", "paused"):
        if not isinstance(getattr(protocol, name), bool):
            raise ConfigError(f"{name} {getattr(protocol, name)!r}: true or false is needed")
    if protocol.task == "ratings" and not protocol.criteria:
        raise ConfigError("a ratings campaign needs criteria; name at least one")
    if protocol.task == "flags" and not protocol.flags:
        raise ConfigError("a flags campaign needs flags; name at least one")
    _check_unique("criteria", [criterion.name for criterion in protocol.criteria])
    _check_unique("flags", [flag.name for flag in protocol.flags])
    _check_unique("scale", [str(choice.value) for choice in protocol.scale])


def _check_unique(key: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{key}: {twice!r} stands there twice; give each another name")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_scale(rows: Any) -> tuple[Choice, ...]:
    wanted = {"value", "label", "short"}
    choices = tuple(Choice(**_object("scale", row, wanted)) for row in _list("scale", rows))
    for choice in choices:
        if not _is_whole(choice.value) or not -3 <= choice.value <= 3:
            raise ConfigError(f"scale: value {choice.value!r} is not a whole number within -3..3")
    if len(choices) < 2:
        raise ConfigError("scale: at least two choices are needed")
    values = {choice.value for choice in choices}
    lonely = next((value for value in sorted(values) if -value not in values), None)
    if lonely is not None:  # sides are swapped at random: what A can be, B must be able to be
        raise ConfigError(f"scale: {lonely} stands there without {-lonely}; give both sides alike")
    return choices


def _read_criteria(rows: Any) -> tuple[Criterion, ...]:
    return tuple(_read_criterion(row) for row in _list("criteria", rows))


def _read_criterion(row: Any) -> Criterion:
    optional = {"question", "low", "high", "anchors"}
    values = _object("criteria", row, {"name", "title"}, optional)
    try:
        values["anchors"] = {
            int(value): str(words) for value, words in dict(values.get("anchors") or {}).items()
        }
    except (TypeError, ValueError):
        raise ConfigError("criteria: anchors map a number to words, as in {1: 'bad'}") from None
    criterion = Criterion(**values)
    if not all(_is_whole(bound) for bound in (criterion.low, criterion.high)):
        raise ConfigError(f"criteria: {criterion.name!r} needs whole numbers as low and high")
    if not 0 < criterion.high - criterion.low <= 9:
        raise ConfigError(f"criteria: {criterion.name!r} needs low < high, at most ten values")
    return criterion


def _read_flags(rows: Any) -> tuple[Flag, ...]:
    standard = {flag.name: flag for flag in STANDARD_FLAGS}
    flags = []
    for row in _list("flags", rows):
        if isinstance(row, str) and row.strip():
            flags.append(standard.get(row) or Flag(name=row, label=row.replace("_", " ")))
        else:
            flags.append(Flag(**_object("flags", row, {"name", "label"})))
    return tuple(flags)


def _list(key: str, rows: Any) -> list[Any]:
    if not isinstance(rows, list | tuple):
        raise ConfigError(f"{key}: a list is needed")
    return list(rows)


def _object(
    key: str, row: Any, needed: set[str], optional: frozenset[str] | set[str] = frozenset()
) -> dict[str, Any]:
    if not isinstance(row, Mapping) or not needed <= row.keys() <= needed | optional:
        names = ", ".join(sorted(needed))
        more = f" (and perhaps {', '.join(sorted(optional))})" if optional else ""
        raise ConfigError(f"{key}: each entry needs {names}{more}, and this one is {row!r}")
    for name in _TEXTS & row.keys():
        if not isinstance(row[name], str):
            raise ConfigError(f"{key}: {name} {row[name]!r}: text is needed; put it in quotes")
        if not row[name].strip() and name != "question":
            raise ConfigError(f"{key}: {name}: it is empty; give words that raters can read")
    return dict(row)


_TEXTS = {"name", "title", "question", "label", "short"}
"""The keys of a choice, a criterion or a flag that hold words for people."""


_READERS = {"scale": _read_scale, "criteria": _read_criteria, "flags": _read_flags}

PROTOCOL_KEYS = tuple(name for name in Protocol.__dataclass_fields__ if name != "task")
"""The keys of a campaign's settings that say what is asked."""


def require_answer(protocol: Protocol, judgement: Judgement) -> None:
    """Raise DataError, saying what is missing, unless a judgement answers what is asked."""
    problem = problem_with_answer(protocol, judgement) or _unasked(protocol, judgement)
    if problem is not None:
        raise DataError(problem)


def _unasked(protocol: Protocol, judgement: Judgement) -> str | None:
    """What a judgement says beyond its task and flags: it would be exported like an answer."""
    extra = set(kinds_of(judgement)) - {protocol.task, "flags"}
    return f"this campaign does not ask for {min(extra)}; leave it out" if extra else None
