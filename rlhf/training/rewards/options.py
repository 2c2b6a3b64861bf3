"""How raw scores become the score of a completion: the settings, the same for PPO, RLOO, GRPO."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class ScoreOptions:
    """Applied in this order: ensemble, normalisation, weights, clip, penalties."""

    ensemble_penalty: float = field(
        default=0.0,
        metadata={
            "help": "An ensemble's score is its members' mean minus so many of their standard "
            "deviations; 0 is the mean."
        },
    )
    reward_normalization: Literal["none", "reference", "running"] = field(
        default="none",
        metadata={
            "help": "Bring each source of rewards to mean 0 and deviation 1 before weighting: by "
            "what reward.json noted of held-out completions (reference), or by all scores so far."
        },
    )
    reward_clip: float | None = field(
        default=None,
        metadata={"help": "Scores are cut to between minus and plus this, before penalties."},
    )
    missing_eos_penalty: float = field(
        default=1.0,
        metadata={"help": "Taken off the score of a completion that did not end by itself."},
    )
    length_penalty: float = field(
        default=0.0,
        metadata={"help": "Taken off the score for each token of the completion."},
    )
