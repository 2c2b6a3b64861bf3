"""The DPO benchmark compares like with like, and its sums are right."""

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

    def tokens(count):
        return generator.integers(3, 250, size=count).tolist()

    return [
        {"prompt_ids": tokens(20), "chosen_ids": tokens(4), "rejected_ids": tokens(7)}
        for _ in range(number)
    ]


def test_all_sides_begin_alike_and_log_the_same(benchmark, tmp_path, tiny_model):
    training, versus = benchmark("dpo_training"), benchmark("dpo_vs_trl")
    rows = tmp_path / "rows.json"
    training.write_rows(rows, tokenised_pairs(24))
    found = {}
    for side in ("stock", "prompt", "head", "ours", "shared", "plain"):
        run = training.Run(
            side=side,
            rows=str(rows),
            weights=str(tmp_path / "weights.safetensors"),
            dtype="float32",
            num_steps=3,
            options={
                "model_name_or_path": tiny_model,
                "learning_rate": 1e-2,
                "lora_r": 2,
                "batch_by_length": "never",
            },
            num_scored=3,
        )
        found[side] = training.train(run, tmp_path)
        assert len(found[side]["seconds"]) == 3
    exact = versus.compared(found["stock"])
    assert {"loss", "grad_norm", "entropy", "rewards/margins", "logps/chosen"} <= exact[0].keys()
    assert abs(exact[2]["loss"] - exact[0]["loss"]) > 1e-3  # it moves, so a slip would show
    assert len(found["stock"]["logps"]) == 6
    assert max(found["stock"]["logps"]) < 0
    for side in ("prompt", "head", "ours", "shared", "plain"):
        assert found[side]["logps"] == pytest.approx(found["stock"]["logps"], rel=1e-5)
        gaps = versus.distances(versus.compared(found[side]), exact)
        assert max(one["relative"] for one in gaps.values()) < 1e-5
    # rows of 20 + 4 + 7 tokens where the plain ones have two of 27
    for side, share in {"stock": 1, "plain": 1, "prompt": 31 / 54, "ours": 31 / 54}.items():
        assert found[side]["token_share"] == pytest.approx(share)


def test_the_ratio_is_of_sums_and_lies_in_its_interval(benchmark):
    versus = benchmark("dpo_vs_trl")
    pairs = [(1.0, 2.0), (3.0, 4.0)]
    found = versus.ratio_interval(pairs)
    assert found["value"] == pytest.approx(4 / 6)
    assert (found["low"], found["high"]) == pytest.approx((1 / 2, 3 / 4))  # either pair alone


def test_rounding_is_told_beside_stocks_own(benchmark):
    versus = benchmark("dpo_vs_trl")
    found = versus.logp_errors(
        {
            "stock float32": [0.0, 0.0],
            "ours float32": [0.0, 1e-6],
            "ours bfloat16": [0.3, -0.3],
            "stock bfloat16": [0.6, 0.6],
        }
    )
    assert found["fp32_max"] == pytest.approx(1e-6)
    assert found["bf16_rms"] == pytest.approx({"ours": 0.3, "stock": 0.6})
    assert found["ratio"] == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})


def test_distances_are_the_largest_and_relative_to_numbers_above_one(benchmark):
    versus = benchmark("dpo_vs_trl")
    exact = [{"loss": 0.5, "logps": -100.0}, {"loss": 0.5, "logps": -100.0}]
    ours = [{"loss": 0.6, "logps": -101.0}, {"loss": 0.5, "logps": -100.0}]
    found = versus.distances(ours, exact)
    assert found["loss"] == pytest.approx({"mean": 0.05, "max": 0.1, "relative": 0.1})
    assert found["logps"] == pytest.approx({"mean": 0.5, "max": 1.0, "relative": 0.01})


def test_where_sharing_stops_paying_lies_between_two_ratios(benchmark):
    versus = benchmark("dpo_vs_trl")

    def found(*values):
        return {
            name: {"ratio": {"shared": {"time": {"value": value}}}}
            for name, value in zip(("0.0", "0.5", "1.0"), values, strict=True)
        }

    assert versus.crossover(found(1.3, 1.1, 0.9)) == pytest.approx(0.75)
    assert versus.crossover(found(1.2, 0.8, 0.7)) == pytest.approx(0.25)
    assert versus.crossover(found(0.9, 0.8, 0.7)) is None


@pytest.mark.parametrize("ratio", [0.0, 0.5, 4.0])
def test_rows_of_a_ratio_have_it(ratio, benchmark):
    rows = benchmark("dpo_vs_trl").ratio_rows(ratio, 200)
    prompts = sum(len(row["prompt_ids"]) for row in rows)
    sides = [sum(len(row[name]) for row in rows) for name in ("chosen_ids", "rejected_ids")]
    assert prompts / 200 == pytest.approx(max(ratio * 64, 1), rel=0.05)
    assert np.mean(sides) / 200 == pytest.approx(64, rel=0.05)
