"""The ppo stage as `rlhf ppo` runs it: what it keeps, when it stops, and what it says of it."""

from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.training.rollout_log import last_rollouts
from tests.training.conftest import metrics_of, read_json, write_rows
from tests.training.gated_reward import gated_reward

OPTIONS = [
    *("--use_peft", "--lora_target_modules", "all-linear", "--learning_rate", "3e-2"),
    *("--per_device_train_batch_size", "4", "--num_iterations", "1", "--logging_steps", "1"),
    *("--max_completion_length", "8", "--eval_fraction", "0.4", "--save_total_limit", "1"),
]


@pytest.fixture
def ppo(tiny_model: Path, tmp_path: Path):
    """`ppo(*options)` runs the stage on a gated reward model and gives its folder."""
    gated_reward(tmp_path, tiny_model)
    rows = ({"prompt": [{"role": "user", "content": f"question {n}?"}]} for n in range(16))
    data = write_rows(tmp_path / "prompts.jsonl", rows)

    def run(*options: str, expect: int = 0) -> Path:
        folder = tmp_path / "out"
        words = ["ppo", "--model_name_or_path", str(tiny_model), "--dataset_name", str(data)]
        words += ["--reward_model_name_or_path", str(tmp_path / "reward")]
        code = main([*words, "--output_dir", str(folder), *OPTIONS, *options, "--debug"])
        assert code == expect
        return folder

    return run


def test_the_best_checkpoint_by_held_out_score_is_what_is_kept(ppo):
    measuring = ("--eval_strategy", "steps", "--eval_steps", "2", "--save_steps", "100")
    folder = ppo("--max_steps", "8", *measuring)
    rows = read_json(folder / "log.json")
    scores = {row["step"]: row["eval_score"] for row in rows if "eval_score" in row}
    assert sorted(scores) == [2, 4, 6, 8]
    best = max(scores, key=lambda step: scores[step])
    metrics = metrics_of(folder)
    assert metrics["best_step"] == best
    assert metrics["eval_score"] == pytest.approx(scores[best])  # measured again on what is kept
    for name in ("adapter_model.safetensors", "critic/critic.safetensors"):
        kept = folder / f"checkpoint-{best}" / name
        assert (folder / name).read_bytes() == kept.read_bytes()


def test_a_run_beyond_its_kl_budget_stops_and_nothing_in_it_is_the_best(ppo, capsys):
    measuring = ("--eval_strategy", "steps", "--eval_steps", "2", "--kl_budget", "1e-6")
    folder = ppo("--max_steps", "50", "--save_steps", "100", *measuring)
    metrics = metrics_of(folder)
    assert metrics["num_steps"] < 50
    assert "above the budget" in metrics["stop_reason"]
    assert metrics["warnings"][-1]["cause"]
    said = capsys.readouterr().err
    assert "above the budget of 1e-06" in said
    assert said.count(f"the run ends here: {metrics['stop_reason']}") == 1
    assert "no checkpoint was within the KL budget of 1e-06 nats, so the last one is kept" in said

    # Continued after the stop, it stays where it stopped.
    before = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "manifest.json").unlink()
    ppo("--max_steps", "50", "--save_steps", "100", *measuring)
    assert (folder / "adapter_model.safetensors").read_bytes() == before
    assert metrics_of(folder)["num_steps"] == metrics["num_steps"]

    # Other evaluations would have kept another checkpoint: it is another run.
    ppo("--max_steps", "50", "--save_steps", "100", *measuring, "--eval_steps", "3", expect=2)
    assert "eval_steps: 2" in capsys.readouterr().err


def test_without_held_out_measurements_the_last_policy_is_kept(ppo):
    folder = ppo("--max_steps", "2", "--save_steps", "2")
    metrics = metrics_of(folder)
    assert metrics["best_step"] is None
    assert metrics["num_rollouts"] == 2
    assert metrics["num_episodes"] == 8
    assert metrics["eval_num_prompts"] == metrics["num_eval"] > 0
    kept = folder / "checkpoint-2" / "adapter_model.safetensors"
    assert (folder / "adapter_model.safetensors").read_bytes() == kept.read_bytes()
    assert {"seconds_rollout", "seconds_score", "seconds_train"} <= metrics.keys()


def test_a_changed_reward_model_is_another_run(ppo, tiny_model, tmp_path, capsys):
    import shutil

    ppo("--max_steps", "2", "--save_steps", "2")
    (tmp_path / "out" / "manifest.json").unlink()
    for name in ("reward", "gate"):
        shutil.rmtree(tmp_path / name)
    gated_reward(tmp_path, tiny_model, heads=(("score", 2.0),))
    ppo("--max_steps", "2", "--save_steps", "2", expect=2)
    assert "holds another run (reward reward (content)" in capsys.readouterr().err


def test_the_score_of_the_last_rollouts_and_its_interval():
    rows = [
        {"score": 1.0, "score_ci_low": 0.7, "score_ci_high": 1.3, "kl": 2.0},
        {"score": 3.0, "score_ci_low": 2.6, "score_ci_high": 3.4, "kl": 4.0},
    ]
    # Half widths 0.3 and 0.4: of their mean, sqrt(0.09 + 0.16) / 2 = 0.25.
    found = last_rollouts(rows)
    assert found == pytest.approx(
        {"score": 2.0, "kl": 3.0, "score_ci_low": 1.75, "score_ci_high": 2.25}
    )
    assert last_rollouts([]) == {}
