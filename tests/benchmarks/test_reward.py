"""The reward benchmarks compare like with like, and their sums are right."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a benchmark as its own script would."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name):
        return __import__(name)

    yield load
    for name in [path.stem for path in BENCHMARKS.glob("*.py")]:
        sys.modules.pop(name, None)


def tokenised_pairs(number):
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(number):
        prompt = generator.integers(3, 250, size=20).tolist()
        sides = [generator.integers(3, 250, size=size).tolist() for size in (4, 7)]
        rows.append({"chosen_ids": prompt + sides[0], "rejected_ids": prompt + sides[1]})
    return rows


def test_both_sides_begin_alike_and_have_the_same_losses(benchmark, tmp_path, tiny_model):
    training = benchmark("reward_training")
    rows = tmp_path / "rows.json"
    pairs = tokenised_pairs(24)
    transcripts = [row["chosen_ids"] for row in pairs] + [row["rejected_ids"] for row in pairs]
    training.write_rows(rows, pairs, {"all": transcripts})
    found = {}
    for side in ("ours", "stock"):
        run = training.Run(
            side=side,
            rows=str(rows),
            weights=str(tmp_path / "weights.safetensors"),
            dtype="float32",
            num_steps=3,
            options={"model_name_or_path": tiny_model, "learning_rate": 1e-2, "lora_r": 2},
        )
        found[side] = training.train(run, tmp_path)
    losses = found["stock"]["losses"]
    assert found["ours"]["losses"] == pytest.approx(losses, abs=1e-5)
    assert abs(losses[2] - losses[0]) > 1e-3  # it moves, so a slip would show
    assert len(found["ours"]["seconds"]) == 3
    assert found["ours"]["scores"]["all"] == pytest.approx(
        found["stock"]["scores"]["all"], abs=1e-3
    )


def test_scored_batches_hold_every_row_once_and_are_bounded(benchmark):
    training = benchmark("reward_training")
    rows = [[1] * length for length in (5000, 1000, 900, 30, 20)]
    made = training.batches(rows)
    assert made == [[0], [1, 2], [3, 4]]


def test_the_ratio_is_taken_within_each_round(benchmark):
    versus = benchmark("reward_vs_trl")
    rounds = [
        {"ours": {"total_s": ours}, "stock": {"total_s": stock}}
        for ours, stock in ((6.0, 10.0), (14.0, 20.0), (4.0, 5.0))
    ]
    assert versus.ratio(rounds, "total_s") == pytest.approx({"median": 0.7, "min": 0.6, "max": 0.8})


def test_the_spread_of_members_is_measured_on_gaps(benchmark):
    ensemble = benchmark("reward_ensemble")
    # Gaps of two members: (2, 2), (1, 1) right and of one mind; (1, -3) wrong and split.
    rows = [
        {"prompt": f"p{number}", "chosen_member_scores": gaps, "rejected_member_scores": [0, 0]}
        for number, gaps in enumerate([(2, 2), (1, 1), (1, -3)])
    ]
    found = ensemble.judge(rows)
    assert found["accuracy_ensemble"]["value"] == pytest.approx(2 / 3)
    assert found["accuracy_of_a_member"]["value"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["auroc"]["spread of the gap"]["value"] == 1.0
    # The mean gaps are 2, 1 and (the mistake's) 1 in size: smaller than one, equal to the other.
    assert found["auroc"]["small gap"]["value"] == 0.75


def test_the_verdict_on_the_spread_says_no_plainly(benchmark):
    verdict = benchmark("reward_ensemble").verdict
    assert "does not predict" in verdict({"value": 0.59, "low": 0.5, "high": 0.7})
    assert "not shown" in verdict({"value": 0.65, "low": 0.55, "high": 0.75})
    assert verdict({"value": 0.7, "low": 0.61, "high": 0.8}).startswith("The spread predicts")
    assert "cannot be judged" in verdict(None)


def test_truth_rows_put_the_truly_better_completion_first(benchmark):
    soft = benchmark("soft_labels")
    item = soft.comparison(
        "how long does rice keep?", ["Rice.", "Rice keeps 4 days, since it dries."]
    )
    assert soft.advantage(item) > 0
    (row,) = soft.truth_rows([item])
    assert (row["chosen"], row["rejected"]) == ("Rice keeps 4 days, since it dries.", "Rice.")
    assert row["simulated"] is True
    (turned,) = soft.truth_rows(
        [soft.comparison(item.prompt.content, ["Rice keeps 4 days, since it dries.", "Rice."])]
    )
    assert turned == row


def test_soft_labels_are_judged_by_the_gap_to_the_truth(benchmark):
    soft = benchmark("soft_labels")
    found = soft.judge(np.array([np.log(3), -np.log(3), 0.0, np.log(3)]))
    assert found["accuracy"] == pytest.approx(2.5 / 4)
    # p = 3/4, 1/4, 1/2, 3/4 of what is true
    expected = (np.log(4 / 3) + np.log(4) + np.log(2) + np.log(4 / 3)) / 4
    assert found["log_loss"] == pytest.approx(expected)


def test_bigbench_comparisons_become_transcripts(benchmark, tmp_path):
    data = benchmark("reward_data")
    example = {"input": "Hi?", "target_scores": {"worse": 0, "better": 1}}
    assert data._transcripts(example) == {
        "chosen": "\n\nHuman: Hi?\n\nAssistant: better",
        "rejected": "\n\nHuman: Hi?\n\nAssistant: worse",
    }
