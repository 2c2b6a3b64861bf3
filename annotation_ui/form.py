"""What a campaign asks, as the page is told: headings, the scale, criteria, flags, the reason."""

from typing import Any

from rlhf.feedback.protocols import Criterion, Protocol

HEADINGS = {
    "pairwise": "Which completion is better?",
    "ratings": "Rate each completion",
    "ranking": "Rank the completions",
    "rewrite": "Write a better completion",
    "flags": "Mark what is wrong",
}
"""The page's heading, by task."""

SKIP_REASONS = (
    "I do not understand the prompt",
    "It needs knowledge that I do not have",
    "It is harmful or upsetting to read",
    "The text is broken or unreadable",
)


def form_of(protocol: Protocol) -> dict[str, Any]:
    """The page's controls as JSON: all that the scripts need to build them, and nothing else."""
    return {
        "task": protocol.task,
        "heading": HEADINGS[protocol.task],
        "scale": [
            {"value": choice.value, "label": choice.label, "short": choice.short}
            for choice in protocol.scale
        ],
        "both_bad": protocol.both_bad,
        "criteria": [_criterion(criterion) for criterion in protocol.criteria],
        "flags": [{"name": flag.name, "label": flag.label} for flag in protocol.flags],
        "rationale": protocol.rationale,
    }


def _criterion(criterion: Criterion) -> dict[str, Any]:
    return {
        "name": criterion.name,
        "title": criterion.title,
        "question": criterion.question,
        "low": criterion.low,
        "high": criterion.high,
        "anchors": {str(value): words for value, words in criterion.anchors.items()},
    }
