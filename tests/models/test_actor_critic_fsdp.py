"""Two processes with FSDP2 and gloo say and learn what one process does."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from rlhf.models.actor_critic import ActorCritic
from rlhf.models.loading import backbone_of, load_policy
from tests.models.reward_models import save_reward
from tests.models.test_actor_critic import built, transcripts
from tests.processes import run_ranks

CASES = {
    "head": {},
    "adapter": {"critic": "adapter"},
    "full": {"lora_config": None, "critic": "adapter"},
}


def made(case: str, base: Path, reward: Path) -> ActorCritic:
    options = dict(CASES[case], reward_dir=reward)
    if "lora_config" in options:
        options["separate_reference"] = load_policy(base)
    model = built(base, **options).train()
    with torch.no_grad():
        model.value_head.weight.fill_(0.3)
    model.activation_checkpointing_enable()
    return model


def said_and_learnt(model: ActorCritic) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Every role's outputs, and the gradient of each trained weight by its name."""
    with torch.no_grad():
        said = [model(transcripts(), "reward"), model(transcripts(), "reference").logps]
    out = model(transcripts(), with_entropy=True, entropy_grad=True)
    (out.logps.sum() + out.values.square().sum() + out.entropies.sum()).backward()
    gradients = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            whole = weight.grad
            gradients[name] = whole.full_tensor() if hasattr(whole, "full_tensor") else whole
    return [each.detach() for each in (*said, out.logps, out.values)], gradients


def sharded(model: ActorCritic) -> ActorCritic:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for part in [model.policy, model.separate_reference]:
        for layer in backbone_of(part).layers if part is not None else []:
            fully_shard(layer, mesh=mesh)
    fully_shard(model.value_head, mesh=mesh)  # fp32, whatever its neighbours are
    return fully_shard(model, mesh=mesh)


def one_rank(base: Path, reward: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo")
    is_main = dist.get_rank() == 0
    try:
        for case in CASES:
            found = one_case(sharded(made(case, base, reward)), folder / case, is_main)
            if is_main:
                torch.save(found, folder / f"{case}.pt")
    finally:
        dist.destroy_process_group()


def one_case(model: ActorCritic, folder: Path, is_main: bool):
    """What it says and learns, and what it says once its weights were lost and read again."""
    said, gradients = said_and_learnt(model)
    model.save_policy(folder, is_main=is_main)
    model.save_critic(folder, is_main=is_main)
    dist.barrier()
    with torch.no_grad():
        for weight in model.policy_parameters() + model.critic_parameters():
            weight.zero_()
    model.load_policy(folder)
    model.load_critic(folder)
    with torch.no_grad():
        again = model(transcripts())
    return said, gradients, [again.logps, again.values]


@pytest.mark.long
def test_two_processes_equal_one(tiny_model, tmp_path):
    reward = save_reward(tiny_model, tmp_path / "reward", num_members=2)
    ended = run_ranks(2, tmp_path / "said", one_rank, tiny_model, reward, tmp_path)
    assert [one.exit_code for one in ended] == [0, 0], [one.stderr for one in ended]
    for case in CASES:
        said, gradients, again = torch.load(tmp_path / f"{case}.pt")
        expected, wanted = said_and_learnt(made(case, tiny_model, reward))
        for ours, theirs in zip([*said, *again], [*expected, *expected[-2:]], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        assert set(gradients) == set(wanted)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-5)
