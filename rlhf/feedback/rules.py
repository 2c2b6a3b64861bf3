"""What a judgement may say: the rules that the store, the import and the check share."""

import math
from collections.abc import Collection, Sequence
from typing import get_args

from rlhf.errors import DataError
from rlhf.records import Comparison, Judgement, PromptContent, Purpose, TaskType

TASKS: tuple[TaskType, ...] = get_args(TaskType)
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

UNDONE = "undone"
"""The skip reason of a judgement that its rater took back and has not yet given anew."""

_KIND_FIELDS = {
    "pairwise": "verdict",
    "ratings": "ratings",
    "ranking": "ranking",
    "rewrite": "rewrite",
    "flags": "flags",
}


def is_taken_back(judgement: Judgement) -> bool:
    """Whether a judgement only says that the one it supersedes was taken back."""
    return judgement.skip == UNDONE


def kinds_of(judgement: Judgement) -> tuple[str, ...]:
    """The kinds of value that a judgement carries, named as the task types are."""
    return tuple(
        kind for kind, name in _KIND_FIELDS.items() if getattr(judgement, name) is not None
    )


def check_judgement(
    judgement: Judgement, comparison: Comparison, kinds: Collection[str] | None = None
) -> None:
    """Raise DataError, saying what is wrong, unless the values fit the comparison.

    `kinds` are those that the campaign takes: one of them must be there, unless it is a skip.
    """
    problem = problem_with(judgement, comparison)
    if problem is None and kinds is not None and judgement.skip is None:
        found = kinds_of(judgement)
        if not set(found) & set(kinds):
            wanted = " or ".join(_KIND_FIELDS[kind] for kind in sorted(kinds))
            problem = f"the campaign asks for {wanted}, and there is only {', '.join(found)}"
    if problem is not None:
        raise DataError(f"judgement {judgement.id}: {problem}")


def problem_with(judgement: Judgement, comparison: Comparison) -> str | None:
    """What makes a judgement impossible for a comparison, in words; None when nothing does."""
    count = len(comparison.completions)
    problems = (
        _text_problem(judgement),
        _value_problem(judgement, count),
        _list_problem(judgement, count),
        _order_problem(judgement.shown_order, count),
    )
    return next((problem for problem in problems if problem is not None), None)


def unwritable(text: str) -> bool:
    """Whether a text holds half a character (a lone surrogate), which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def check_text(text: str, what: str) -> None:
    """Raise DataError when a text cannot be stored as Unicode."""
    if unwritable(text):
        raise DataError(f"{what} holds half a character (a lone surrogate); write it as Unicode")


def check_comparison(comparison: Comparison, task: str | None = None) -> None:
    """Raise DataError unless a comparison can be put before raters of `task`."""
    where = f"item {comparison.item!a}"
    if not comparison.item:
        raise DataError("an item without a name; give each comparison an identity")
    if not comparison.completions:
        raise DataError(f"{where}: no completions; give at least one")
    if task == "pairwise" and len(comparison.completions) != 2:
        number = len(comparison.completions)
        raise DataError(f"{where}: a pairwise campaign compares 2 completions, not {number}")
    check_text(comparison.item, "an item's name")
    for text in prompt_texts(comparison.prompt.content):
        check_text(text, f"{where}: the prompt")
    for completion in comparison.completions:
        check_text(completion.text, f"{where}: a completion")
        check_text(completion.source or "", f"{where}: a source")


def prompt_texts(content: PromptContent) -> list[str]:
    """Every text in a prompt, roles among them."""
    if isinstance(content, str):
        return [content]
    return [text for message in content for text in (message["role"], message["content"])]


def _value_problem(judgement: Judgement, count: int) -> str | None:
    if not kinds_of(judgement) and judgement.skip is None:
        return "no verdict, ranking, ratings, rewrite or skip; give at least one"
    if judgement.verdict is not None:
        if count != 2:
            return f"a verdict compares 2 completions, and the item has {count}; give a ranking"
        if not -3 <= judgement.verdict <= 3:
            return f"verdict {judgement.verdict} is not within -3..3"
    if judgement.both_bad and judgement.verdict is None:
        return "both_bad without a verdict; give verdict 0 with it"
    if judgement.rewrite_of is not None:
        if judgement.rewrite is None:
            return "rewrite_of without a rewrite"
        if not 0 <= judgement.rewrite_of < count:
            return f"rewrite_of {judgement.rewrite_of} is no index into {count} completions"
    if not (math.isfinite(judgement.seconds) and judgement.seconds >= 0):
        return f"seconds {judgement.seconds} is no duration"
    return None


def _list_problem(judgement: Judgement, count: int) -> str | None:
    if judgement.ranking is not None:
        if len(judgement.ranking) != count:
            return f"ranking has {len(judgement.ranking)} ranks for {count} completions"
        if min(judgement.ranking) < 1:
            return "ranks begin at 1, the best"
    if judgement.ratings is not None and not judgement.ratings:
        return "ratings name no criterion"
    for criterion, values in (judgement.ratings or {}).items():
        if len(values) != count:
            return f"ratings of {criterion!a}: {len(values)} values for {count} completions"
        if any(value is not None and not math.isfinite(value) for value in values):
            return f"ratings of {criterion!a}: a value is not a finite number"
    if judgement.flags is not None and len(judgement.flags) != count:
        return f"flags has {len(judgement.flags)} lists for {count} completions"
    return None


def _order_problem(shown_order: Sequence[int], count: int) -> str | None:
    if sorted(shown_order) != list(range(count)):
        return f"shown_order {list(shown_order)} is no order of {count} completions"
    return None


def _text_problem(judgement: Judgement) -> str | None:
    named = {
        "id": judgement.id,
        "annotator": judgement.annotator,
        "rewrite": judgement.rewrite,
        "skip": judgement.skip,
        "rationale": judgement.rationale,
    }
    for name, text in named.items():
        if text is not None and unwritable(text):
            return f"{name} holds half a character (a lone surrogate); write it as Unicode"
    if not judgement.id or not judgement.annotator:
        return "an empty id or annotator"
    flagged = [flag for flags in judgement.flags or () for flag in flags]
    if any(unwritable(word) for word in [*(judgement.ratings or {}), *flagged]):
        return "a criterion or flag holds half a character (a lone surrogate)"
    return None
