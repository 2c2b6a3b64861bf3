"""The benchmark of soft against hard labels for DPO compares like with like."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WORDS = ["Rice.", "Rice keeps 4 days, since it dries.", "It keeps.", "Keep 3 days, so it is safe."]


@pytest.fixture
def benchmark(monkeypatch):
    """The benchmark, imported as its own script would."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield __import__("dpo_soft_labels")
    for name in [path.stem for path in BENCHMARKS.glob("*.py")]:
        sys.modules.pop(name, None)


def answers_file(path: Path, num_prompts: int, kind: str) -> Path:
    """What `rlhf sample` writes: three answers to each prompt."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"how long does {kind} rice {n} keep?"}],
            "completions": [f"{WORDS[(n + k) % 4]} {n}." for k in range(3)],
            "ended": [True, True, n % 3 > 0],
        }
        for n in range(num_prompts)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompts_of(answers: Path) -> Path:
    """A file with the prompts of one with answers."""
    path = answers.with_name("prompts.jsonl")
    rows = map(json.loads, answers.read_text().splitlines())
    path.write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows))
    return path


@pytest.fixture
def quickstart(tmp_path, tiny_model):
    """A folder with what the quickstart leaves after its sample stage."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "sft").symlink_to(tiny_model)
    answers_file(tmp_path / "run" / "sample" / "completions.jsonl", 12, "old")
    return tmp_path / "run"


def test_the_whole_comparison_runs_and_says_that_it_is_simulated(
    benchmark, quickstart, tmp_path, monkeypatch, capsys
):
    from rlhf.cli import main as command

    commands = []

    def in_this_process(*words):
        commands.append(list(map(str, words)))
        assert command(commands[-1]) in (0, None)

    monkeypatch.setattr(benchmark, "rlhf", in_this_process)
    work, found_file = tmp_path / "work", tmp_path / "found.json"
    answers_file(work / "heldout-3.jsonl", 5, "new")
    words = ["--run", quickstart, "--work", work, "--json", found_file, "--seeds", 2]
    words += ["--steps", 2, "--answers", 3, "--dtype", "float32", "--win_rate"]
    words += ["--max_new_tokens", 4, "--heldout_prompts", prompts_of(work / "heldout-3.jsonl")]
    monkeypatch.setattr(sys, "argv", ["dpo_soft_labels.py", *map(str, words)])
    benchmark.main()

    assert "\nSIMULATED: raters agree with the truth in " in capsys.readouterr().out
    found = json.loads(found_file.read_text())
    assert found["simulated"] is True
    assert found["num_heldout_pairs"] > 0
    assert found["measures"].keys() == {"accuracy", "log_loss", "win_rate"}
    assert found["measures"]["win_rate"]["soft"]["n"] == 2 * 5 * 3  # seeds, prompts, answers
    trained = [one for one in commands if one[0] == "dpo"]
    by_labels = {side: [one for one in trained if side in one] for side in ("hard", "soft")}
    for seed, (hard, soft) in enumerate(zip(*by_labels.values(), strict=True)):
        differing = {one for one, two in zip(hard, soft, strict=True) if one != two}
        assert differing == {"hard", str((work / f"hard-{seed}").absolute())}
    hard, soft = (found["runs"][0][side]["gaps"] for side in ("hard", "soft"))
    assert hard != soft  # the labels reach the loss
    manifest = json.loads((work / "soft-0" / "manifest.json").read_text())
    assert manifest["simulated"] is True
    assert manifest["metrics"]["num_train"] == 16


def test_every_pair_of_different_answers_is_compared_once(benchmark, tmp_path):
    row = {"prompt": "a?", "completions": ["x", "y", "x"], "ended": [True, True, True]}
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (only,) = benchmark.comparisons(path)
    assert [one.text for one in only.completions] == ["x", "y"]


def test_no_prompt_gives_more_than_two_pairs(benchmark, tmp_path):
    items = benchmark.comparisons(answers_file(tmp_path / "answers.jsonl", 5, "old"))
    assert len(items) == 15
    drawn = benchmark.two_a_prompt(items, seed=3)
    assert len(drawn) == len({one.item for one in drawn}) == 10
    assert drawn != benchmark.two_a_prompt(items, seed=4)


def test_the_truly_better_answer_comes_first(benchmark, tmp_path):
    for item in benchmark.comparisons(answers_file(tmp_path / "answers.jsonl", 4, "old")):
        assert benchmark.advantage(benchmark.better_first(item)) <= 0


def test_soft_less_hard_is_taken_pair_by_pair(benchmark):
    ln3 = float(np.log(3))
    runs = [
        {"hard": {"gaps": [0.0, -1.0]}, "soft": {"gaps": [ln3, -1.0]}, "raters": {"a": 0.5}},
        {"hard": {"gaps": [0.0, -1.0]}, "soft": {"gaps": [0.0, 1.0]}, "raters": {"a": 1.0}},
    ]
    for one in runs:
        one["label_accuracy"] = 0.75
    found = benchmark.summary(runs, ["p", "q"], 1)
    accuracy, log_loss = found["measures"]["accuracy"], found["measures"]["log_loss"]
    # hard: 1/2, 0, 1/2, 0; soft: 1, 0, 1/2, 1
    assert accuracy["hard"]["value"] == pytest.approx(0.25)
    assert accuracy["soft_minus_hard"]["value"] == pytest.approx(0.375)
    assert accuracy["seeds"] == {"hard": [0.25, 0.25], "soft": [0.5, 0.75]}
    # A gap of ln 3 costs ln(4/3) where none costs ln 2; one of 1 where -1 was saves 1 nat.
    saved = (np.log(2) - np.log(4 / 3)) + 1.0
    assert log_loss["soft_minus_hard"]["value"] == pytest.approx(-saved / 4)
    assert any("-0." in line and "log_loss" in line for line in benchmark.table(found))


def test_the_win_rate_is_clustered_by_the_prompts_of_the_answers(benchmark):
    side = {"gaps": [1.0], "wins": [1.0, 1.0, 0.0, 0.0]}  # two answers to each of two prompts
    one = {"hard": side, "soft": side, "raters": {"a": 1.0}, "label_accuracy": 1.0}
    found = benchmark.summary([one, one], ["p"], 2)["measures"]["win_rate"]
    assert found["soft"]["value"] == 0.5
    assert found["soft"]["low"] == 0.0  # of two prompts: all or none
    assert found["soft"]["high"] == 1.0
