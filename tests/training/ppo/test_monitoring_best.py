"""The best checkpoint is the best within the budget, in a real transformers Trainer too."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from rlhf.training.checkpoints import CheckpointKeeper, checkpoints, is_complete
from rlhf.training.ppo.monitoring import BestWithinBudget, Watch, best_checkpoint, run_summary

EVALUATIONS = {2: (1.0, 2.0), 4: (5.0, 9.0), 6: (3.0, 7.5), 8: (2.0, 1.0)}
"""By step: eval_score and eval_kl. Of those within 8 nats step 6 is the best."""


def evaluated(
    callback: BestWithinBudget, args: TrainingArguments
) -> tuple[TrainerState, list[bool]]:
    state, saved = TrainerState(), []
    callback.on_train_begin(args, state, TrainerControl())
    for step, (score, kl) in EVALUATIONS.items():
        state.global_step, control = step, TrainerControl()
        callback.on_evaluate(args, state, control, {"eval_score": score, "eval_kl": kl})
        saved.append(control.should_save)
    return state, saved


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    return TrainingArguments(output_dir=str(folder), use_cpu=True, report_to=[], **changes)


@pytest.mark.parametrize(
    ("budget", "best", "saved"),
    [
        (8.0, (6, 3.0), [True, False, True, False]),
        (None, (4, 5.0), [True, True, False, False]),
        (0.5, (None, None), [False] * 4),
    ],
)
def test_the_highest_score_within_the_budget(
    tmp_path: Path, budget: float | None, best: tuple[Any, Any], saved: list[bool]
) -> None:
    state, forced = evaluated(BestWithinBudget(budget), arguments(tmp_path))
    assert (state.best_global_step or None, state.best_metric) == best
    assert forced == saved
    if best[0]:
        assert state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best[0]}")


def test_nothing_is_best_after_training_or_without_a_score(tmp_path: Path) -> None:
    args, control, state = arguments(tmp_path), TrainerControl(), TrainerState()
    callback = BestWithinBudget(8.0)
    for metrics in ({"eval_score": 1.0, "eval_kl": 0.0}, {"eval_kl": 0.0}):
        callback.on_evaluate(args, state, control, metrics)  # not training
    callback.on_train_begin(args, state, control)
    for metrics in (
        {"eval_score": float("nan"), "eval_kl": 0.0},
        {"eval_score": 1.0, "eval_kl": float("nan")},
        {"eval_score": 1.0},
        {"eval_kl": 1.0},
    ):
        callback.on_evaluate(args, state, control, metrics)
    callback.on_train_end(args, state, control)
    callback.on_evaluate(args, state, control, {"eval_score": 1.0, "eval_kl": 0.0})
    assert state.best_metric is None
    assert not control.should_save


def test_no_saving_keeps_no_best(tmp_path: Path) -> None:
    state, saved = evaluated(BestWithinBudget(8.0), arguments(tmp_path, save_strategy="no"))
    assert state.best_metric is None
    assert not any(saved)


class _Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.weight - x) ** 2).mean()}


class _Scripted(Trainer):
    """A trainer whose evaluations say what the test wants them to."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        score, kl = EVALUATIONS[self.state.global_step]
        metrics = {"eval_score": score, "eval_kl": kl}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def test_a_trainer_saves_the_best_at_its_own_step_and_keeps_it(tmp_path: Path) -> None:
    args = arguments(
        tmp_path,
        max_steps=8,
        per_device_train_batch_size=1,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=8,
        logging_steps=100,
        disable_tqdm=True,
    )
    rows = [{"x": torch.ones(1)} for _ in range(8)]
    trainer = _Scripted(
        model=_Line(),
        args=args,
        train_dataset=rows,
        eval_dataset=rows,
        callbacks=[BestWithinBudget(8.0), CheckpointKeeper(keep=1)],
    )
    trainer.train()
    kept = [path.name for path in checkpoints(tmp_path)]
    assert kept == ["checkpoint-6", "checkpoint-8"]  # the best, and the newest
    best = best_checkpoint(trainer.state, tmp_path)
    assert best == tmp_path / "checkpoint-6"
    assert is_complete(best)
    assert TrainerState.load_from_json(str(best / "trainer_state.json")).best_metric == 3.0
    logged = [row["step"] for row in trainer.state.log_history if "loss" in row]
    assert logged == [2, 4, 6, 8]  # each evaluation's step, since it may save
    watch = Watch(SimpleNamespace(kl_budget=8.0, max_completion_length=4))
    assert run_summary(watch, trainer.state) == {
        "best_step": 6,
        "best_eval_score": 3.0,
        "best_eval_kl": 7.5,
        "stop_reason": None,
        "warnings": [],
    }


def test_a_run_beyond_its_budget_has_no_best(tmp_path: Path) -> None:
    state = TrainerState()
    state.log_history = [{"step": 2, "eval_score": 1.0, "eval_kl": 99.0}]
    watch = Watch(SimpleNamespace(kl_budget=8.0, max_completion_length=4))
    for _ in range(3):
        watch.look({"kl": 99.0}, step=2)
    summary = run_summary(watch, state)
    assert summary["best_step"] is None
    assert summary["best_eval_score"] is None
    assert summary["stop_reason"].startswith("KL of 99 nats a completion is above the budget")
    assert [one["cause"] for one in summary["warnings"]] == ["kl_budget"]
    assert best_checkpoint(state, tmp_path) is None
