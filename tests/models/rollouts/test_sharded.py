"""A policy that FSDP2 shards after the copy was made: a sync gathers what it needs."""

import pytest
import torch
from torch import distributed

from rlhf.errors import ConfigError
from rlhf.models.rollouts.engine import make_engine
from rlhf.models.rollouts.merged_copy import MergedCopy, obstacle
from rlhf.models.rollouts.policy_engine import PolicyEngine
from rlhf.models.rollouts.vllm_engine import save_adapter
from tests.models.rollouts.conftest import PROMPTS, make_adapted, make_sampling


@pytest.fixture
def one_rank():
    """A process group of this process alone: FSDP2 then shards all the same."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def shard(policy) -> None:
    from torch.distributed.fsdp import fully_shard

    base = policy.get_base_model()
    mesh = distributed.init_device_mesh("cpu", (1,))
    for layer in base.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(base, mesh=mesh)


def test_copy_follows_a_policy_that_is_sharded_later(tiny_model, one_rank, tmp_path):
    from safetensors.torch import load_file

    policy, twin = make_adapted(tiny_model), make_adapted(tiny_model)
    engine = MergedCopy(policy, make_sampling())
    shard(policy)
    assert "was sharded" in obstacle(policy, "default")
    with torch.no_grad():
        for model in (policy, twin):
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.mul_(2)
    engine.sync()
    expected = MergedCopy(twin, make_sampling()).sample(PROMPTS, seed=0)
    assert engine.sample(PROMPTS, seed=0) == expected

    save_adapter(policy, "default", tmp_path / "sharded")
    save_adapter(twin, "default", tmp_path / "whole")
    ours, theirs = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("sharded", "whole")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_sharded_policy_does_not_sample_itself(tiny_model, one_rank):
    policy = make_adapted(tiny_model)
    shard(policy)
    engine = make_engine(policy, make_sampling())
    assert isinstance(engine, PolicyEngine)
    with pytest.raises(ConfigError, match="sharded over processes"):
        engine.sample(PROMPTS, seed=0)
