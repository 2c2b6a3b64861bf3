"""Members of an ensemble share one base and nothing else: exactly as if trained apart."""

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from rlhf.errors import DataError
from rlhf.models.loading import reward_head
from rlhf.models.reward_checks import require_checkpoint_heads
from rlhf.models.reward_ensemble import (
    active_member,
    add_members,
    draw_head,
    keep_trainable,
    load_members,
    member_names,
    members_of,
)
from rlhf.models.reward_spec import RewardSpec
from rlhf.models.scoring import RewardModel
from tests.models.reward_models import save_reward, tiny_members

CHOSEN = torch.tensor([[5, 40, 41, 2], [7, 33, 90, 2]])
REJECTED = torch.tensor([[5, 50, 2, 0], [7, 61, 62, 2]])


def loss_of(model) -> torch.Tensor:
    better, worse = (model(input_ids=ids).logits[:, 0] for ids in (CHOSEN, REJECTED))
    return -torch.nn.functional.logsigmoid(better - worse).mean()


def trained(model, num_steps: int = 3):
    """All members by one AdamW on the sum of their losses."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0.01)
    for _ in range(num_steps):
        total = torch.zeros(())
        for member in members_of(model):
            with active_member(model, member):
                total = total + loss_of(model)
        total.backward()
        assert all(weight.grad is not None for weight in weights)
        optimizer.step()
        optimizer.zero_grad()
    return model


def weights_of(model, member: str) -> dict[str, torch.Tensor]:
    """A member's tensors without its name in theirs."""
    part = f".{member}."
    return {
        name.replace(part, "."): weight.detach()
        for name, weight in model.named_parameters()
        if part in f"{name}."
    }


def test_two_members_trained_on_one_base_equal_two_models_trained_apart(tiny_model):
    together = trained(tiny_members(tiny_model, 2, seed=2))
    for seed, member in ((2, "default"), (3, "member-2")):
        apart = tiny_members(tiny_model, seed=seed)
        if member != "default":  # the second is drawn by seed + 1, its head included
            draw_head(apart, "default", seed=seed)
        apart = trained(apart)
        ours, theirs = weights_of(together, member), weights_of(apart, "default")
        assert set(ours) == set(theirs)
        assert len(ours) > 5
        assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) == 0.0


def test_members_start_apart_in_fp32_and_the_draw_leaves_no_trace(tiny_model):
    model = tiny_members(tiny_model, 1).bfloat16()
    before = torch.random.get_rng_state()
    assert add_members(model, 3, seed=2) == ["default", "member-2", "member-3"]
    assert torch.equal(torch.random.get_rng_state(), before)
    heads = [head.weight for head in reward_head(model).modules_to_save.values()]
    assert all(not torch.equal(first, second) for first, second in pairwise(heads))
    for member in member_names(3)[1:]:
        weights = weights_of(model, member)
        assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_switching_keeps_what_is_trainable_and_comes_back(tiny_model):
    model = tiny_members(tiny_model, 2)
    trainable = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert any("member-2" in name for name in trainable)
    with active_member(model, "member-2"):
        assert model.active_adapter == "member-2"
        assert {n for n, w in model.named_parameters() if w.requires_grad} == trainable
    assert model.active_adapter == "default"
    model.requires_grad_(False)
    with active_member(model, "member-2"):
        assert not any(weight.requires_grad for weight in model.parameters())
    assert not any(weight.requires_grad for weight in model.parameters())


def test_a_backward_pass_in_the_block_is_right_under_checkpointing(tiny_model):
    """Checkpointed layers are computed again in it, with the member that is active then."""
    plain, checkpointed, too_late = (tiny_members(tiny_model, 2).train() for _ in range(3))
    for model in (checkpointed, too_late):
        model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    for model in (plain, checkpointed):
        for member in members_of(model):
            with active_member(model, member):
                loss_of(model).backward()
    total = torch.zeros(())
    for member in members_of(too_late):
        with active_member(too_late, member):
            total = total + loss_of(too_late)
    total.backward()
    assert gradient_gap(checkpointed, plain) < 1e-6
    assert gradient_gap(too_late, plain) > 1e-2


def gradient_gap(model, other) -> float:
    """The largest difference of any gradient; infinite where one of the two has none."""
    gaps = [0.0]
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        if (ours.grad is None) != (theirs.grad is None):
            return math.inf
        if ours.grad is not None:
            gaps.append(float((ours.grad - theirs.grad).abs().max()))
    return max(gaps)


def test_saved_members_come_back_exactly(tiny_model, tmp_path):
    folder = save_reward(tiny_model, tmp_path / "reward", num_members=2)
    assert (folder / "adapter_model.safetensors").is_file()
    assert (folder / "member-2" / "adapter_model.safetensors").is_file()
    made = RewardModel(tiny_members(tiny_model, 2).eval(), RewardModel.load(folder).tokenizer)
    found = RewardModel.load(folder)
    rows = [[5, 40, 41, 2], [7, 2]]
    ours, theirs = (each.all_scores_ids(rows).raw for each in (found, made))
    assert ours.shape == (2, 2, 1)
    assert float((ours - theirs).abs().max()) == 0.0
    assert abs(float(ours[0, 0, 0] - ours[1, 0, 0])) > 1e-3


def test_checkpoint_goes_back_into_all_members_and_keeps_them_trainable(tiny_model, tmp_path):
    folder = save_reward(tiny_model, tmp_path / "checkpoint", num_members=2)
    expected = {
        member: weights_of(tiny_members(tiny_model, 2), member) for member in member_names(2)
    }
    model = trained(tiny_members(tiny_model, 2).train())
    load_members(model, folder)
    assert model.training
    for member, weights in expected.items():
        found = weights_of(model, member)
        assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert all(
        w.requires_grad for m in expected for n, w in model.named_parameters() if f".{m}" in n
    )


def test_transformers_own_resumption_freezes_members_until_they_are_kept(tiny_model, tmp_path):
    """What transformers does to several adapters of a checkpoint, and what undoes it."""
    from transformers import Trainer, TrainingArguments

    folder = save_reward(tiny_model, tmp_path / "checkpoint", num_members=2)
    model = tiny_members(tiny_model, 2, seed=9)
    arguments = TrainingArguments(str(tmp_path / "run"), use_cpu=True, report_to="none")
    trainer = Trainer(model=model, args=arguments)
    trainer._load_from_checkpoint(str(folder))
    for member in member_names(2):
        ours, saved = weights_of(model, member), weights_of(tiny_members(tiny_model, 2), member)
        assert all(torch.equal(ours[name], saved[name]) for name in saved)
    frozen = [n for n, w in model.named_parameters() if "member-2" in n and not w.requires_grad]
    assert len(frozen) > 4
    keep_trainable(model)
    assert all(w.requires_grad for n, w in model.named_parameters() if "member-2" in n)
    assert not any(w.requires_grad for n, w in model.named_parameters() if "base_layer" in n)


def test_member_that_is_gone_is_named(tiny_model, tmp_path):
    folder = save_reward(tiny_model, tmp_path / "reward", num_members=3)
    (folder / "member-2" / "adapter_model.safetensors").unlink()
    with pytest.raises(DataError, match=r"names 3 members, but the adapter of 'member-2' is gone"):
        RewardModel.load(folder)


def test_head_missing_in_one_member_is_named(tiny_model, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_reward(tiny_model, tmp_path / "reward", num_members=2)
    weights = folder / "member-2" / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(weights).items() if "score" not in k}, weights)
    with pytest.raises(DataError, match=r"member-2: its adapter holds no reward head"):
        RewardModel.load(folder)


def test_a_checkpoint_without_a_head_is_not_continued_from(tiny_model, tmp_path):
    from safetensors.torch import load_file, save_file

    spec = RewardSpec(members=member_names(2))
    checkpoint = save_reward(tiny_model, tmp_path / "checkpoint-3", num_members=2)
    require_checkpoint_heads(checkpoint, spec)
    weights = checkpoint / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(weights).items() if "score" not in k}, weights)
    with pytest.raises(DataError, match=r"checkpoint-3: its adapter holds no reward head.*restart"):
        require_checkpoint_heads(checkpoint, spec)
    with pytest.raises(DataError, match=r"without a reward head.*--restart"):
        require_checkpoint_heads(tiny_model, RewardSpec())


def test_spread_is_the_members_standard_deviation(tiny_model, tmp_path):
    model = RewardModel.load(save_reward(tiny_model, tmp_path / "reward", num_members=2))
    scores = model.all_scores(["Hi", "What?"], ["Wrap it.", "A box."])
    first, second = scores.members  # of two numbers the deviation is half their distance
    torch.testing.assert_close(scores.spread, (first - second).abs() / 2)
    torch.testing.assert_close(scores.mean, (first + second) / 2)
    torch.testing.assert_close(
        model.member_scores(["Hi"], ["Wrap it."])[:, 0], scores.members[:, 0]
    )


def test_a_full_model_is_its_own_only_member():
    whole = SimpleNamespace()
    assert members_of(whole) == RewardSpec().members == ["default"]
    keep_trainable(whole)
    with active_member(whole, "default"):
        pass
