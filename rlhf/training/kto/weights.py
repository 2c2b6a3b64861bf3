"""How much desirable and undesirable completions count against each other."""

from dataclasses import dataclass
from typing import Any

from rlhf.training.options import KTOArguments

LOW, HIGH = 1.0, 4 / 3
"""Within which lambda_D n_D : lambda_U n_U should lie: Ethayarajh et al. 2024, arXiv 2402.01306,
Eq. (8), from 1 to 4/3, as TRL checks it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBalance:
    """What all rows of each label weigh (their number, or the sum of their weights), and the
    factor that the losses of each label are multiplied by.
    """

    desirable: float
    undesirable: float
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    @property
    def ratio(self) -> float:
        """What desirable rows weigh in the loss for each that undesirable ones do."""
        return (self.desirable * self.desirable_weight) / (
            self.undesirable * self.undesirable_weight
        )

    @property
    def is_balanced(self) -> bool:
        """Whether the ratio lies within 1:1 and 4:3."""
        return LOW - 1e-9 <= self.ratio <= HIGH + 1e-9

    def words(self) -> str:
        """One line for the log."""
        line = (
            f"desirable rows weigh {self.desirable:g}, undesirable ones {self.undesirable:g}; "
            f"desirable_weight {self.desirable_weight:.4g}, undesirable_weight "
            f"{self.undesirable_weight:.4g}: they stand {self.ratio:.2f} : 1 in the loss"
        )
        return line if self.is_balanced else f"{line}, outside 1:1 to 4:3; {_ADVICE}"


_ADVICE = "leave the weights to --balance_labels auto, or give one of them"


def balance(
    desirable: float, undesirable: float, stage: KTOArguments, training: Any
) -> LabelBalance:
    """The factors of both labels: those given, or with --balance_labels auto the rarer label's
    raised until the ratio is within 1:1 and 4:3, and the other's 1.

    The range's nearer end is taken, so that no row counts more than balance asks for. Both
    weights are positive.
    """
    given = training.desirable_weight, training.undesirable_weight
    if stage.balance_labels == "never" or given != (1.0, 1.0):
        return LabelBalance(
            desirable=desirable,
            undesirable=undesirable,
            desirable_weight=given[0],
            undesirable_weight=given[1],
        )
    ratio = desirable / undesirable
    return LabelBalance(
        desirable=desirable,
        undesirable=undesirable,
        desirable_weight=max(1.0, LOW / ratio),
        undesirable_weight=max(1.0, ratio / HIGH),
    )
