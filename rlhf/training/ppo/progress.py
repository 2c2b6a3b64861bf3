"""What a run has measured and not yet said: between two rows of the log, and within a rollout."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from rlhf.training.ppo.monitoring import (
    CompletionLog,
    rollout_metrics,
    send_table,
    update_metrics,
)
from rlhf.training.ppo.objective import MEANS
from rlhf.training.ppo.rollout import Rollout
from rlhf.training.ppo.scoring import record_of
from rlhf.training.ppo.step_stats import StepStats

_LATEST = ("episodes", "kl_coef")


class Progress:
    """Collects the metrics of rollouts and optimizer steps until the log or the watch takes them.

    `episodes` counts the completions of all processes so far; `approx_kl` is the last step's, in
    nats a token, from the policy that sampled.
    """

    def __init__(self) -> None:
        self.step = StepStats()
        self.since_log = StepStats()
        self.of_rollout = StepStats()
        self.rollouts: list[dict[str, float]] = []
        self.current: dict[str, float] = {}
        self.episodes = 0
        self.approx_kl = 0.0

    def note_rollout(self, trainer: Any, rollout: Rollout) -> None:
        """Measure a scored rollout, keep its completions, and move the price of KL."""
        record = record_of(rollout)
        metrics = rollout_metrics(
            record, trainer.kl.coef, reduce=trainer.reduce, reduce_max=trainer.reduce_max
        )
        num_completions = len(rollout) * trainer.args.world_size
        self.episodes += num_completions
        metrics["episodes"] = self.episodes
        trainer.kl.update(metrics["kl"], num_completions)
        self.current = metrics
        self.rollouts.append(metrics)
        self.approx_kl = 0.0
        if trainer.args.log_completions:
            keep_completions(trainer, rollout.number + 1, record)  # as the watch counts

    def end_step(self, total: Tensor | float, *, is_first: bool) -> dict[str, Tensor]:
        """The means of the step that has been computed; the ratio's error of a first one alone."""
        errors = {"ratio_error_max": "first_ratio_error"} if is_first else {}
        return self.step.finish(total, {**MEANS, **errors})

    def keep_step(self, means: Mapping[str, Tensor], trainer: Any) -> None:
        """Keep a step's means for the log and for the watch."""
        self.since_log.append(means)
        self.of_rollout.append(means)
        if trainer.args.target_kl is not None:
            self.approx_kl = float(trainer.reduce(means["approx_kl"]))

    def is_through(self, trainer: Any) -> bool:
        """Whether the rollout at hand has been learnt from to its end, and not been looked at."""
        loader = trainer.loader
        return bool(self.current) and loader.iteration >= loader.num_iterations

    def take_rollout(self, trainer: Any) -> dict[str, float]:
        """The metrics of the rollout at hand and its updates; nothing the second time."""
        if not self.current:
            return {}
        metrics = self.current | _means(self.of_rollout, trainer)
        self.current = {}
        self.of_rollout.clear()
        return metrics

    def take_log(self, trainer: Any) -> dict[str, float]:
        """The means over the rollouts and steps since the last row of the log."""
        found = mean_metrics(self.rollouts) | _means(self.since_log, trainer)
        self.rollouts = []
        self.since_log.clear()
        return found

    def state_dict(self) -> dict[str, Any]:
        """All of it; checkpoints are at the end of a step."""
        return {
            "since_log": self.since_log.state_dict(),
            "of_rollout": self.of_rollout.state_dict(),
            "rollouts": [dict(each) for each in self.rollouts],
            "current": dict(self.current),
            "episodes": self.episodes,
            "approx_kl": self.approx_kl,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.since_log.load_state_dict(state["since_log"])
        self.of_rollout.load_state_dict(state["of_rollout"])
        self.rollouts = [dict(each) for each in state["rollouts"]]
        self.current = dict(state["current"])
        self.episodes = int(state["episodes"])
        self.approx_kl = float(state["approx_kl"])


def mean_metrics(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each key over the rows that have it; of counts and prices the latest."""
    names = dict.fromkeys(name for row in rows for name in row)
    found = {}
    for name in names:
        values = [row[name] for row in rows if name in row]
        found[name] = values[-1] if name in _LATEST else sum(values) / len(values)
    return found


def keep_completions(trainer: Any, number: int, record: Any) -> None:
    """Put a rollout's completions on disk, and some into the tables of the trackers."""
    args = trainer.args
    log = CompletionLog(args.output_dir, rank=args.process_index)
    log.write(number, record)
    if trainer.is_world_process_zero() and args.report_to:
        limit, step = args.num_completions_to_log, trainer.state.global_step
        send_table(args.report_to, log.table(record, step=step, limit=limit))


def _means(stats: StepStats, trainer: Any) -> dict[str, float]:
    stacked = {name: values.to(torch.float64) for name, values in stats.stacked().items()}
    return update_metrics(stacked, reduce=trainer.reduce, reduce_max=trainer.reduce_max)


class Ending(TrainerCallback):  # type: ignore[misc]
    """Ends a training that had better stop, with a row of the log and a checkpoint."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer = self.trainer
        if trainer.progress.is_through(trainer):
            trainer.end_rollout()
        if trainer.watch.stop_reason:
            control.should_training_stop = control.should_log = True
            control.should_save = control.should_save or args.save_strategy != "no"
