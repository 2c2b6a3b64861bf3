"""It stops for other weights and for what is not a number, and not for rounding."""

import math

import pytest
import torch

from rlhf.errors import StageError
from rlhf.models.rollouts.canary import LogpCanary
from rlhf.models.rollouts.merged_copy import MergedCopy
from tests.models.rollouts.conftest import PROMPTS, full_logps, make_sampling

MASK = torch.tensor([[True, True, True], [True, False, False]])


def test_difference_is_over_the_tokens_of_the_mask():
    """Differences of 0.1, 0.2, 0.3 and 0.0: mean 0.15, at most 0.3; padding does not count."""
    policy = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, 0.0, 0.0]])
    engine = torch.tensor([[-1.1, -1.8, -3.3], [-4.0, 9.0, math.nan]])
    found = LogpCanary(0.2).check(engine, policy, MASK)
    assert found.mean == pytest.approx(0.15)
    assert found.max == pytest.approx(0.3)
    assert found.num_tokens == 4
    assert found.way is None
    rows = [[-1.1, -1.8, -3.3], [-4.0]]
    assert LogpCanary(0.2).check(rows, policy, MASK).mean == pytest.approx(0.15, abs=1e-6)


def test_mean_above_the_tolerance_stops_with_its_numbers():
    policy = torch.zeros(2, 3)
    with pytest.raises(
        StageError, match=r"vllm and the trainer disagree.*mean 0\.15 .*at most 0\.3 .*0\.1\)"
    ):
        LogpCanary(0.1, engine="vllm").check([[0.1, -0.2, 0.3], [0.0]], policy, MASK)


def test_mean_at_the_tolerance_is_put_up_with():
    found = LogpCanary(0.25).check([[0.25, 0.25, 0.25], [0.25]], torch.zeros(2, 3), MASK)
    assert found.mean == 0.25


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_what_is_not_a_number_stops(bad):
    rows, policy = [[0.0, bad, 0.0], [0.0]], torch.zeros(2, 3)
    with pytest.raises(StageError, match="1 of 4 log-probabilities of the sampler are not finite"):
        LogpCanary(0.1).check(rows, policy, MASK)
    policy[0, 1] = bad
    with pytest.raises(StageError, match="1 of 4 log-probabilities of the trainer are not finite"):
        LogpCanary(0.1).check([[0.0] * 3, [0.0]], policy, MASK)


def test_no_tokens_are_no_difference():
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    assert LogpCanary(0.1).check([[]], torch.zeros(1, 2), nothing).mean == 0


def test_way_is_1_at_the_policy_and_0_at_the_reference():
    policy, ref = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.1, -1.9]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert LogpCanary(1.0).check(policy, policy, mask, ref).way == pytest.approx(1.0)
    middle = (policy + ref) / 2
    assert LogpCanary(1.0).check(middle, policy, mask, ref).way == pytest.approx(0.5, abs=1e-5)
    with pytest.raises(StageError, match=r"has not reached it"):
        LogpCanary(1.0).check(ref, policy, mask, ref)


def noisy(values: torch.Tensor, size: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return values + size * torch.randn(values.shape, generator=generator)


def three_views(moved: float, noise: float, seed: int) -> list[torch.Tensor]:
    """Engine at the policy, engine at the reference, policy, reference: [16, 48] each.

    The policy is `moved` from the reference, and every view of either is rounded by `noise`.
    """
    ref = -2 + noisy(torch.zeros(16, 48), 1.0, 10 * seed)
    policy = noisy(ref, moved, 10 * seed + 1)
    views = (policy, ref, policy, ref)
    return [noisy(view, noise, 10 * seed + 2 + place) for place, view in enumerate(views)]


@pytest.mark.parametrize("moved", [0.0, 0.005, 0.05, 0.2, 1.0])
def test_rounding_alone_never_stops(moved):
    mask = torch.ones(16, 48, dtype=torch.bool)
    for seed in range(100):
        engine, _, policy, ref = three_views(moved, 0.05, seed)
        LogpCanary(0.1).check(engine, policy, mask, ref)


def test_at_step_0_policy_and_reference_are_one():
    mask = torch.ones(16, 48, dtype=torch.bool)
    engine, _, policy, _ = three_views(0.0, 0.05, 0)
    found = LogpCanary(0.1).check(engine, policy, mask, policy)
    assert found.way is None


@pytest.mark.parametrize(("moved", "noise"), [(0.1, 0.01), (0.08, 0.03), (0.02, 0.001)])
def test_adapter_that_never_reached_the_engine_stops_below_the_tolerance(moved, noise):
    """Seen as verl's issue 7495: the differences alone look like rounding."""
    mask = torch.ones(16, 48, dtype=torch.bool)
    for seed in range(50):
        _, stale, policy, ref = three_views(moved, noise, seed)
        assert (stale - policy).abs().mean() < 0.1
        with pytest.raises(StageError, match="samples from the reference, not from the policy"):
            LogpCanary(0.1).check(stale, policy, mask, ref)


def logps_of(model, completions) -> list[list[float]]:
    pairs = zip(PROMPTS, completions, strict=True)
    return [full_logps(model, prompt, one.token_ids) for prompt, one in pairs]


def test_real_engine_passes_and_one_whose_sync_is_forgotten_does_not(adapted):
    """Weights of A and B halved by training: the copy still has the old ones."""
    engine = MergedCopy(adapted, make_sampling())
    sampled = engine.sample(PROMPTS, seed=0)
    lengths = torch.tensor([len(one.token_ids) for one in sampled])
    mask = torch.arange(12)[None] < lengths[:, None]
    rows = [one.logps for one in sampled]
    with adapted.disable_adapter():
        ref = logps_of(adapted, sampled)
    found = LogpCanary(0.1).check(rows, logps_of(adapted, sampled), mask, ref)
    assert found.mean < 1e-5
    assert found.way == pytest.approx(1.0, abs=1e-3)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.mul_(0.5)
    with pytest.raises(StageError, match="disagree"):
        LogpCanary(0.1).check(rows, logps_of(adapted, sampled), mask, ref)


def test_engine_that_has_the_base_alone_is_found(adapted):
    for weight in (w for name, w in adapted.named_parameters() if "lora_B" in name):
        weight.data.mul_(0.05)
    engine = MergedCopy(adapted, make_sampling(max_new_tokens=40, ignore_end=True))
    for layer, twin in engine._layers:
        twin.write(layer.base_layer.weight.detach())
    sampled = engine.sample(PROMPTS, seed=0)
    mask = torch.ones(len(PROMPTS), 40, dtype=torch.bool)
    rows, policy = [one.logps for one in sampled], logps_of(adapted, sampled)
    with adapted.disable_adapter():
        ref = logps_of(adapted, sampled)
    with pytest.raises(StageError, match="has not reached it"):
        LogpCanary(10.0).check(rows, policy, mask, ref)
