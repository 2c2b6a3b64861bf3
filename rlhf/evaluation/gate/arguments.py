"""The keys of `rlhf gate`: what is measured, and the threshold of every check.

The reasons for the defaults stand in docs/reward.md.
"""

from dataclasses import dataclass, field, fields
from math import isfinite

from rlhf.errors import ConfigError

_MIN_REASON_WORDS = 3


def _threshold(default: float | None, help_text: str) -> float | None:
    value: float | None = field(
        default=default, metadata={"help": f"{help_text}; null asks nothing"}
    )
    return value


@dataclass(kw_only=True)
class GateArguments:
    """What `rlhf gate` takes. A threshold of null asks nothing: the check is shown all the same."""

    reward_dir: str = field(default="", metadata={"help": "folder that rlhf reward wrote"})
    output_dir: str = field(default="", metadata={"help": "folder to write to"})
    dtype: str | None = field(
        default=None,
        metadata={"help": "of the loaded model: float32, bfloat16 ...; default: as it was trained"},
    )
    batch_size: int = field(default=16, metadata={"help": "transcripts scored together"})
    seed: int = field(default=0, metadata={"help": "of the bootstrap"})
    require_all: bool = field(
        default=False, metadata={"help": "a check that could not be measured fails the gate"}
    )
    override_reason: str | None = field(
        default=None,
        metadata={"help": "let a failed gate pass: why, in a few words, for the report to show"},
    )
    min_pairs: int = field(
        default=10, metadata={"help": "a kind of pairs with fewer of them is not judged"}
    )
    num_probes: int = field(
        default=8, metadata={"help": "held-out transcripts to load, pad and merge with"}
    )
    measure_roundtrip: bool = field(
        default=True,
        metadata={"help": "load, save and merge it in float32 (memory and disk for a whole copy)"},
    )
    out_of_domain: list[str] = field(
        default_factory=list,
        metadata={"help": "sets of pairs: a folder of subsets, a data set, or NAME=DATASET"},
    )
    best_of_n: str | None = field(
        default=None,
        metadata={"help": "completions, several a prompt, as rlhf sample writes them"},
    )
    best_of_n_value: str | None = field(
        default=None,
        metadata={
            "help": "who values them: truth (of simulated raters), NAME=REWARD_DIR, or column "
            "(the rows' `value`); default: the column, else truth where the raters were simulated"
        },
    )

    min_accuracy: float | None = _threshold(0.6, "held-out accuracy, at least")
    min_accuracy_low: float | None = _threshold(0.5, "low end of the accuracy's interval, at least")
    min_ceiling_share: float | None = _threshold(
        0.65, "accuracy over the labels' noise ceiling, at least"
    )
    min_accuracy_strong: float | None = _threshold(
        0.6, "accuracy on the pairs whose label is clearest, at least"
    )
    min_accuracy_by_length: float | None = _threshold(
        0.5, "no bin of length difference is shown to have less accuracy"
    )
    min_rater_agreement: float | None = _threshold(
        0.5, "with no rater is the model shown to agree less"
    )
    max_ece: float | None = _threshold(0.2, "expected calibration error, at most")
    max_temperature: float | None = _threshold(4.0, "temperature that calibrates best, at most")
    min_gain_over_length: float | None = _threshold(
        0.0, "accuracy above the better of pick-the-longer and pick-the-shorter, at least"
    )
    max_length_correlation: float | None = _threshold(
        0.6, "correlation of score gap and length gap, either way, at most"
    )
    min_accuracy_longer_rejected: float | None = _threshold(
        0.5, "where the longer is rejected, not shown to have less accuracy"
    )
    max_side_bias: float | None = _threshold(
        0.1, "share of labels for the side shown first, off one half, at most"
    )
    max_side_accuracy_gap: float | None = _threshold(
        0.3, "accuracy on labels for the favoured side above that against it, at most"
    )
    max_padding_shift: float | None = _threshold(
        0.2, "shift of a score by padding or batch, in spreads of the scores, at most"
    )
    max_reload_shift: float | None = _threshold(
        0.1, "shift of a score from what training recorded, in spreads, at most"
    )
    max_roundtrip_shift: float | None = _threshold(
        0.01, "shift in float32 by padding, saving, loading or merging, in spreads, at most"
    )
    max_trained_on: float | None = _threshold(
        0.02, "share of held-out pairs whose prompt is trained on too, at most"
    )
    max_overfitting_gap: float | None = _threshold(
        0.25, "training accuracy above held-out, at most"
    )
    min_spread_auroc: float | None = _threshold(
        0.6, "AUROC of an ensemble's spread against its mistakes, at least"
    )
    min_out_of_domain_accuracy: float | None = _threshold(
        0.5, "accuracy out of domain is not shown to be less"
    )
    min_best_of_n_gain: float | None = _threshold(
        0.0, "gain in true value of best-of-n over one, at least"
    )
    max_best_of_n_length_ratio: float | None = _threshold(
        1.5, "words of best-of-n over words of one, at most"
    )
    max_best_of_n_repetition_rise: float | None = _threshold(
        0.05, "rise in the share of repeated trigrams by best-of-n, at most"
    )

    def __post_init__(self) -> None:
        """ConfigError for what cannot be meant, whatever is on the disk."""
        for key in ("reward_dir", "output_dir"):
            if not getattr(self, key):
                raise ConfigError(f"--{key} is missing; see rlhf gate --help")
        for key, least in (("batch_size", 1), ("min_pairs", 2), ("num_probes", 2)):
            if getattr(self, key) < least:
                raise ConfigError(f"--{key} {getattr(self, key)}: must be at least {least}")
        for name in threshold_names():
            refuse_out_of_range(name, getattr(self, name))
        if self.override_reason is not None:
            refuse_no_reason(self.override_reason)


def threshold_names() -> list[str]:
    """The fields that are thresholds, in their order."""
    names = [each.name for each in fields(GateArguments)]
    return [name for name in names if name.startswith(("min_", "max_")) and name != "min_pairs"]


_ANY_ABOVE_0 = {"max_temperature", "max_best_of_n_length_ratio"}
_SHIFTS = {"max_padding_shift", "max_reload_shift", "max_roundtrip_shift"}
_MAY_BE_BELOW_0 = {
    "min_gain_over_length",
    "max_side_accuracy_gap",
    "max_overfitting_gap",
    "max_best_of_n_repetition_rise",
}


def refuse_out_of_range(name: str, value: float | None) -> None:
    """ConfigError for a threshold that every model would pass, or none could."""
    if value is None:
        return
    low, high = 0.0, 1.0
    if name in _ANY_ABOVE_0 | _SHIFTS:
        high = float("inf")
    elif name == "min_best_of_n_gain":  # in the units of whoever values the completions
        low, high = float("-inf"), float("inf")
    elif name in _MAY_BE_BELOW_0:
        low = -1.0
    strictly = name in _ANY_ABOVE_0
    if not isfinite(value) or not low <= value <= high or (strictly and value == 0):
        if not isfinite(low):
            wanted = "a finite number"
        elif isfinite(high):
            wanted = f"from {low:g} to {high:g}"
        else:
            wanted = "above 0" if strictly else "0 or more"
        raise ConfigError(f"--{name} {value:g}: must be {wanted}, or null to ask nothing")


def refuse_no_reason(reason: str) -> None:
    """ConfigError for an override whose reason says nothing."""
    if len(reason.split()) < _MIN_REASON_WORDS:
        raise ConfigError(
            f"--override_reason {reason!r}: say in a few words why a failed gate may be passed; "
            "the report shows it"
        )
