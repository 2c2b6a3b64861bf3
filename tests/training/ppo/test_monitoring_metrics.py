"""The numbers of a rollout and of its updates, on data small enough for pencil and paper."""

import math

import pytest
import torch

from rlhf.training.ppo.monitoring import (
    RolloutRecord,
    eval_metrics,
    rollout_metrics,
    update_metrics,
)


def record_of(**changes) -> RolloutRecord:
    """Four completions of 1, 2, 1 and 2 tokens."""
    values = {
        "prompts": ["p", "q", "r", "s"],
        "completions": ["a b c a b c", "a b c d", "", "x"],
        "num_tokens": [1, 2, 1, 2],
        "ended": [True, False, True, True],
        "scores": torch.tensor([1.0, 2.0, 3.0, 6.0]),
        "kls": torch.tensor([0.5, -0.5, 1.0, 3.0]),
        "rewards": torch.tensor([1.0, 2.0, 2.0, 3.0]),
        "source_scores": {"reward": torch.tensor([1.0, 2.0, 3.0, 6.0])},
        "logps": torch.tensor([-1.0, -1.0, -2.0, -3.0, -1.0, -2.0]),
        "sampler_logps": torch.tensor([-1.0, -1.5, -2.0, -3.0, -1.0, -2.25]),
        "values": torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        "returns": torch.tensor([0.0, 2.0, 2.0, 3.0, 4.0, 7.0]),
        "entropies": torch.tensor([1.0, 1.0, 2.0, 2.0, 3.0, 3.0]),
    }
    return RolloutRecord(**{**values, **changes})


def test_the_numbers_of_a_rollout() -> None:
    found = rollout_metrics(record_of(), 0.05)
    assert found["score"] == 3.0
    # Deviations -2, -1, 0, 3: their squares sum to 14.
    assert found["score_std"] == pytest.approx(math.sqrt(14 / 4))
    # Student's t of 3 degrees of freedom: 3.1824; the error is sqrt(14 / 3 / 4).
    half = 3.182446 * math.sqrt(14 / 12)
    assert found["score_ci_low"] == pytest.approx(3 - half, abs=1e-5)
    assert found["score_ci_high"] == pytest.approx(3 + half, abs=1e-5)
    assert found["score/reward"] == 3.0
    assert found["reward"] == 2.0
    # Deviations -1, 0, 0, 1: the error is sqrt(2 / 3 / 4).
    assert found["reward_ci_low"] == pytest.approx(2 - 3.182446 * math.sqrt(2 / 12), abs=1e-5)
    assert found["reward_ci_high"] == pytest.approx(2 + 3.182446 * math.sqrt(2 / 12), abs=1e-5)
    assert found["kl"] == 1.0
    assert found["kl_coef"] == 0.05
    assert found["entropy"] == 2.0
    assert found["completion_length"] == 1.5
    assert found["ended_rate"] == 0.75
    # Of "a b c a b c" one of four trigrams stood before; the others have none that did.
    assert found["repetition"] == pytest.approx(0.25 / 4)
    assert found["value_mean"] == 2.5
    # Errors 0, 1, 0, 0, 0, 2 vary by 5/6 - 1/4 = 7/12; returns by 82/6 - 9 = 14/3.
    assert found["explained_variance"] == pytest.approx(1 - (7 / 12) / (14 / 3), abs=1e-6)
    assert found["sampler_logp_difference"] == pytest.approx(0.75 / 6)
    assert found["sampler_logp_difference_max"] == pytest.approx(0.5)


def test_completions_of_one_prompt_make_the_interval_wider() -> None:
    alone = rollout_metrics(record_of(), 0.0)
    grouped = rollout_metrics(record_of(prompts=["p", "p", "r", "r"]), 0.0)
    # Two groups that deviate by -3 and 3: (9 + 9) / 16 * 2 = 9/4; t of 1 degree is 12.7062.
    assert grouped["score_ci_high"] - 3 == pytest.approx(12.706205 * 1.5, abs=1e-4)
    assert grouped["score"] == alone["score"]


def test_a_single_prompt_has_no_interval() -> None:
    found = rollout_metrics(record_of(prompts=["p"] * 4), 0.0)
    assert math.isnan(found["score_ci_low"])
    assert math.isnan(found["score_ci_high"])


def test_what_was_not_measured_is_left_out() -> None:
    names = ("rewards", "logps", "sampler_logps", "values", "returns", "entropies")
    found = rollout_metrics(record_of(**dict.fromkeys(names)), 0.0)
    assert not found.keys() & {"reward", "entropy", "value_mean", "sampler_logp_difference"}


def test_a_source_that_passed_over_a_completion_is_averaged_over_the_others() -> None:
    scores = torch.tensor([1.0, math.nan, 3.0, 8.0])
    assert rollout_metrics(record_of(source_scores={"f": scores}), 0.0)["score/f"] == 4.0


def test_two_ranks_say_what_one_would() -> None:
    """Each rank's sums meet those of the other, in the order in which they are asked for."""
    whole = rollout_metrics(record_of(), 0.05)
    halves = [
        part(record_of(), slice(0, 2), slice(0, 3)),
        part(record_of(), slice(2, 4), slice(3, 6)),
    ]
    for mine, other in (halves, halves[::-1]):
        found = on_two_ranks(mine, other)
        assert found == pytest.approx(whole, abs=1e-6, nan_ok=True)


def part(record: RolloutRecord, rows: slice, tokens: slice) -> RolloutRecord:
    columns = ("prompts", "completions", "num_tokens", "ended", "scores", "kls", "rewards")
    flat = ("logps", "sampler_logps", "values", "returns", "entropies")
    values = {name: getattr(record, name)[rows] for name in columns}
    values |= {name: getattr(record, name)[tokens] for name in flat}
    sources = {name: scores[rows] for name, scores in record.source_scores.items()}
    return RolloutRecord(**values, source_scores=sources)


def on_two_ranks(mine: RolloutRecord, other: RolloutRecord) -> dict[str, float]:
    """`mine`'s metrics where every reduction meets what `other` says at the same place.

    A rank's later sums depend on earlier results, so the other is run again for each reduction,
    with all results so far.
    """
    results: list[torch.Tensor] = []

    def reduce_with(combine):
        def reduce(numbers: torch.Tensor) -> torch.Tensor:
            there = said_by(other, len(results), results)
            results.append(combine(numbers.clone(), there))
            return results[-1].clone()

        return reduce

    return rollout_metrics(
        mine, 0.05, reduce=reduce_with(torch.add), reduce_max=reduce_with(torch.maximum)
    )


class _Asked(Exception):
    pass


def said_by(record: RolloutRecord, index: int, results: list[torch.Tensor]) -> torch.Tensor:
    """What a rank puts into reduction number `index`, when the earlier ones gave `results`."""
    seen: list[torch.Tensor] = []

    def reduce(numbers: torch.Tensor) -> torch.Tensor:
        seen.append(numbers.clone())
        if len(seen) > index:
            raise _Asked
        return results[len(seen) - 1].clone()

    with pytest.raises(_Asked):
        rollout_metrics(record, 0.05, reduce=reduce, reduce_max=reduce)
    return seen[-1]


def test_eval_metrics_carry_their_prefix_and_count_prompts() -> None:
    found = eval_metrics(record_of(prompts=["p", "p", "q", "r"]))
    assert found["eval_score"] == 3.0
    assert found["eval_kl"] == 1.0
    assert found["eval_num_prompts"] == 3
    assert set(found) == {
        *("eval_score", "eval_score_ci_low", "eval_score_ci_high", "eval_kl"),
        *("eval_completion_length", "eval_ended_rate", "eval_num_prompts"),
    }


def test_updates_are_averaged_over_steps_and_the_first_ratio_is_the_worst() -> None:
    stats = {
        "policy_loss": torch.tensor([1.0, 3.0]),
        "clip_fraction": torch.tensor([0.1, 0.3], dtype=torch.bfloat16),
        "first_ratio_error": torch.tensor([0.0, 0.5]),
        "grad_norm_policy": torch.tensor([2.0, 4.0]),
        "grad_norm_critic": torch.tensor([]),
    }
    alone = update_metrics(stats)
    assert alone["policy_loss"] == 2.0
    assert alone["clip_fraction"] == pytest.approx(0.2, abs=1e-3)
    assert alone["first_ratio_error"] == 0.5
    assert "grad_norm_critic" not in alone
    # A second rank with the same share: losses add up, norms are of all ranks already.
    doubled = update_metrics(stats, reduce=lambda numbers: 2 * numbers)
    assert doubled["policy_loss"] == 4.0
    assert doubled["grad_norm_policy"] == 3.0
    assert doubled["first_ratio_error"] == 0.5


def test_nan_stays_nan() -> None:
    assert math.isnan(update_metrics({"policy_loss": torch.tensor([1.0, math.nan])})["policy_loss"])
    broken = record_of(scores=torch.tensor([1.0, math.nan, 1.0, 1.0]))
    assert math.isnan(rollout_metrics(broken, 0.0)["score"])
