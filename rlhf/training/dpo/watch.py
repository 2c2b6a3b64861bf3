"""What goes wrong in DPO, one function a cause: from the log so far to a sentence or None.

The watch is a function of the log alone, so a continued run says what an unbroken one says: it
looks again at the rows that its checkpoint keeps. The thresholds are judgements, each with its
reason; a warning asks a person to look, it decides nothing.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf.training.arguments import Settings
from rlhf.training.watching import SMOOTHED, History, Warnings

HISTORY = 256
"""Rows of the log remembered of each metric."""
TRAINED = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "loss")
EVALUATED = (
    *("eval_kl", "eval_kl_se"),
    *("eval_completion_length", "eval_completion_length_se", "eval_ref_completion_length"),
)
HELD_OUT, LOSS_THEN = "held_out", "loss_then"
"""The held-out loss of each evaluation, and the level of the training loss when it was made."""
FALL_NATS = 1.0
"""A chosen completion that became e times less likely is worth a word: less passes by."""
FALL_ERRORS = 3.0
"""Standard errors that the mean must lie below 0: rows of few pairs scatter."""
FALL_ROWS = 6
"""Fewest rows of the log whose mean is believed."""
MAX_MARGIN = 10.0
"""In units of reward: sigmoid(10) is 0.99995, from where a sigmoid loss has no gradient left."""
LEARNING_ROWS = 30
"""Rows of the log after which something must have been learnt: warm-up takes a tenth of a run."""
LEARNT = 0.55
"""Accuracy below which, chance allowed for, nothing was learnt: noisy labels still give 0.6."""
CHANCE_ERRORS = 2.0
OVERFITTING_EVALUATIONS = 2
"""Evaluations in a row above the best one: a single one may be noise."""
OVERFITTING_RISE = 0.01
"""Share of the best held-out loss by which they must lie above it."""
LENGTH_CHANGE = 0.25
"""Share of the reference's length: less is no change that a reader would notice."""
LENGTH_ERRORS = 2.0
PUSHES_DOWN = ("apo_down",)
"""Losses that are meant to lower the chosen completion too."""
UNBOUNDED = ("ipo", "sppo_hard", "nca_pair", "sigmoid_norm", "sft")
"""Losses whose margin is bounded, or measured otherwise, so that its size says nothing."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What the causes know of the run. `kl_budget` is in nats a completion; None: no budget."""

    beta: float
    loss_types: tuple[str, ...] = ("sigmoid",)
    kl_budget: float | None = None


def chosen_falls(history: History, run: Watched) -> str | None:
    """The chosen completions become less likely while the margin grows: the rejected fall faster.

    Likelihood displacement: https://github.com/huggingface/trl/issues/800; Razin et al. (2024,
    arXiv 2410.08847), Pal et al. (2024, arXiv 2402.13228). Rewards are beta times the log-ratio to
    the reference, so they are 0 at first whatever the completion.
    """
    if set(run.loss_types) & set(PUSHES_DOWN):
        return None
    rewards = history.values["rewards/chosen"]
    size = max(FALL_ROWS, len(rewards) // 4)
    last = history.last("rewards/chosen", size)
    margin, first = history.level("rewards/margins"), history.first.get("rewards/margins")
    rejected = history.level("rewards/rejected")
    if not last or margin is None or first is None or rejected is None:
        return None
    nats = fmean(last) / run.beta
    error = stdev(last) / len(last) ** 0.5 / run.beta
    if nats > -FALL_NATS or nats > -FALL_ERRORS * error or margin <= max(first, 0.0):
        return None
    return (
        f"chosen log-probability falls with the rejected: {nats:.1f} nats a completion (rejected "
        f"{rejected / run.beta:.1f}) below the reference, while the margin rose from {first:.2g} "
        f"to {margin:.2g}: probability goes to completions that nobody chose; lower "
        '--learning_rate, raise --beta, add "sft" to --loss_type, or take --loss_type apo_zero'
    )


def overfitting(history: History, _: Watched) -> str | None:
    """The held-out loss rises while that of training goes on falling."""
    losses, then = history.values[HELD_OUT], history.values[LOSS_THEN]
    if len(losses) <= OVERFITTING_EVALUATIONS:
        return None
    best = min(range(len(losses)), key=losses.__getitem__)
    since = losses[best + 1 :][-OVERFITTING_EVALUATIONS:]
    lowest = losses[best]
    if len(since) < OVERFITTING_EVALUATIONS or min(since) < lowest + OVERFITTING_RISE * abs(lowest):
        return None
    if then[-1] >= then[best]:
        return None
    return (
        f"held-out loss rose from {lowest:.3g} to {losses[-1]:.3g} while the training loss fell "
        f"from {then[best]:.3g} to {then[-1]:.3g}: overfitting; train for less long, lower "
        "--learning_rate, or keep the best by --early_stopping_patience"
    )


def no_learning(history: History, _: Watched) -> str | None:
    """The policy tells chosen from rejected no better than chance does."""
    last = history.last("rewards/accuracies", LEARNING_ROWS)
    if not last:
        return None
    accuracy = fmean(last)
    if accuracy >= LEARNT + CHANCE_ERRORS * stdev(last) / len(last) ** 0.5:
        return None
    return (
        f"accuracy of {accuracy:.2f} over the last {len(last)} rows of the log: nothing is learnt; "
        "raise --learning_rate, or look at whether the labels say anything (rlhf feedback "
        "agreement)"
    )


def margins_explode(history: History, run: Watched) -> str | None:
    """Margins so large that the loss has no gradient left, but for the pairs that it gets wrong."""
    margin = history.level("rewards/margins")
    if margin is None or margin <= MAX_MARGIN or set(run.loss_types) & set(UNBOUNDED):
        return None
    return (
        f"margin of {margin:.3g} between chosen and rejected: by the loss all is learnt, and the "
        "policy still moves; lower --learning_rate, train for less long, or take --loss_type ipo"
    )


def length_drift(history: History, _: Watched) -> str | None:
    """Held-out completions are of another length than the reference's on the same prompts."""
    lengths, references = (
        history.values[key] for key in ("eval_completion_length", "eval_ref_completion_length")
    )
    if not lengths or not references or references[-1] <= 0:
        return None
    length, reference = lengths[-1], references[-1]
    errors = history.values["eval_completion_length_se"]
    error = errors[-1] if errors else 0.0
    change = length / reference - 1
    if abs(change) < LENGTH_CHANGE or abs(length - reference) < LENGTH_ERRORS * error:
        return None
    direction = "longer" if change > 0 else "shorter"
    return (
        f"held-out completions of {length:.0f} tokens, {abs(change):.0%} {direction} than the "
        f"reference's {reference:.0f}: length drift; compare the lengths of chosen and rejected, "
        "or take --ld_alpha, --loss_type sigmoid_norm or a higher --beta"
    )


def kl_budget(history: History, run: Watched) -> str | None:
    """The policy went further from its reference than it was allowed."""
    kls = history.last("eval_kl", 1)
    if run.kl_budget is None or not kls or not kls[0] > run.kl_budget:
        return None
    return (
        f"KL of {kls[0]:.3g} nats a completion to the reference is above the budget of "
        f"{run.kl_budget:g}; raise --beta, or lower --learning_rate"
    )


CAUSES: Mapping[str, Callable[[History, Watched], str | None]] = {
    "chosen_falls": chosen_falls,
    "overfitting": overfitting,
    "no_learning": no_learning,
    "margins_explode": margins_explode,
    "length_drift": length_drift,
    "kl_budget": kl_budget,
}


class Watch:
    """Looks at the rows of a log in turn; `said` keeps every warning with its step."""

    def __init__(self, run: Watched) -> None:
        self.run = run
        self._history = History((*TRAINED, *EVALUATED, HELD_OUT, LOSS_THEN), HISTORY)
        self._warnings = Warnings()

    @property
    def said(self) -> list[dict[str, Any]]:
        """Every warning so far: its cause, step and words."""
        return self._warnings.said

    def look(self, row: Mapping[str, Any]) -> list[str]:
        """The warnings that a row of the log gives rise to, in words, each once until it is gone.

        A row of training speaks of what is trained, one of an evaluation of what is measured.
        """
        losses = self._history.last("loss", SMOOTHED) or self._history.values["loss"]
        if "eval_loss" in row and losses:  # not one before the first step
            row = {**row, HELD_OUT: row["eval_loss"], LOSS_THEN: fmean(losses)}
        self._history.append(row)
        found = {name: cause(self._history, self.run) for name, cause in CAUSES.items()}
        return self._warnings.take(found, step=row.get("step"))


def watched(settings: Settings) -> Watched:
    """What of the settings the causes look at."""
    training = settings.training
    return Watched(training.beta, tuple(training.loss_type), settings.stage.kl_budget)


def warnings_of(rows: Sequence[Mapping[str, Any]], run: Watched) -> list[dict[str, Any]]:
    """For the manifest: all that a log gives rise to, as {"cause", "step", "words"}."""
    watch = Watch(run)
    for row in rows:
        watch.look(row)
    return watch.said


class WatchCallback(TrainerCallback):  # type: ignore[misc]
    """Says each warning as the row is logged that gives rise to it."""

    def __init__(self, run: Watched) -> None:
        self.run = run
        self.watch = Watch(run)
        self._num_seen = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A continued run has said already what the log up to here gives rise to."""
        self.watch, self._num_seen = Watch(self.run), 0
        self._look(state)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        for words in self._look(state):
            if state.is_world_process_zero:
                print(f"step {state.global_step}: {words}", file=sys.stderr)

    def _look(self, state: TrainerState) -> list[str]:
        rows = state.log_history[self._num_seen :]
        self._num_seen = len(state.log_history)
        return [words for row in rows for words in self.watch.look(row)]
