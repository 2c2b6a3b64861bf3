"""How the report writes names, shares, intervals and numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

_ACRONYMS = {"sft", "dpo", "ppo", "kto"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence; `simulated` when a number in it was made from simulated raters, `is_alarming`
    when a reader must not miss it.
    """

    text: str
    simulated: bool = False
    is_alarming: bool = False


def known(estimate: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Whether an estimate is there and has a value."""
    return estimate is not None and estimate.get("value") is not None


def label_of(policy: str) -> str:
    """A policy's name as a sentence writes it: `dpo` as DPO, others as they are."""
    if policy == "online_dpo":
        return "online DPO"
    return policy.upper() if policy in _ACRONYMS else policy


def sentence_start(text: str) -> str:
    """The text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def percent(share: float | None) -> str:
    """`0.643` as `64%`."""
    return "unknown" if share is None else f"{100 * share:.0f}%"


def interval(estimate: Mapping[str, Any]) -> str:
    """`95% interval 55-73%`, or that none can be given."""
    if estimate.get("low") is None or estimate.get("high") is None:
        return "too few for an interval"
    return f"95% interval {100 * estimate['low']:.0f}\N{EN DASH}{percent(estimate['high'])}"


def quoted(text: str) -> str:
    """Another's words between quotation marks."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}"


def shortened(text: str, length: int) -> str:
    """The text, or as much of it as fits `length` with an ellipsis after it."""
    return text if len(text) <= length else text[:length].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def score_text(value: object) -> str:
    """A judge's score of one completion, to two decimals."""
    return f"{value:.2f}" if isinstance(value, (int, float)) else "unknown"


def number(value: object) -> str:
    """A number with as many digits as a reader can use; other values as text."""
    if isinstance(value, bool) or value is None:
        return "unknown" if value is None else str(value).lower()
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def prompt_text(prompt: object) -> str:
    """A prompt as a reader sees it: its text, or each turn after its role."""
    if not isinstance(prompt, list):
        return str(prompt)
    turns = [turn for turn in prompt if isinstance(turn, dict)]
    if len(turns) == 1:
        return str(turns[0].get("content", ""))
    return "\n".join(f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in turns)
