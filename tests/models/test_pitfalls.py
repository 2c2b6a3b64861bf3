"""What goes wrong in silence with several adapters on one base, and that it cannot here.

Each is a fact of PEFT, transformers or TRL that was seen; where the plain way can be shown to be
wrong, it is shown beside ours.
"""

import pytest
import torch
from peft import get_peft_model
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from rlhf.models.actor_critic import ActorCritic
from rlhf.models.adapters import adapter_in_use, using_adapter
from rlhf.models.loading import load_policy, reward_head
from rlhf.models.scoring import RewardModel
from rlhf.models.transcripts import Transcripts
from tests.models.reward_models import save_reward
from tests.models.test_actor_critic import COMPLETIONS, PROMPTS, built, lora, transcripts

IDS = torch.tensor([[5, 40, 41, 33, 2]])


def two_adapters(base):
    """A PeftModel with the trainable adapters "default" and "critic"."""
    torch.manual_seed(1)
    model = get_peft_model(load_policy(base), lora())
    model.add_adapter("critic", lora())
    model.set_requires_grad(["default", "critic"], True)
    return model


def flags_of(model):
    return {name: weight.requires_grad for name, weight in model.named_parameters()}


def gradients_of(model):
    return {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}


def largest_gap(ours, theirs):
    assert set(ours) == set(theirs)
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


# 1. Switching adapters flips requires_grad.


def test_pefts_own_switch_loses_the_policys_gradients(tiny_model):
    model = two_adapters(tiny_model)
    policy = model(IDS).logits.sum()
    model.set_adapter("critic")
    (policy + model(IDS).logits.sum()).backward()
    assert not any(".default." in name for name in gradients_of(model))


@pytest.mark.parametrize("name", ["critic", None])
def test_our_switch_changes_no_flag_inside_or_after(name, tiny_model):
    model = two_adapters(tiny_model)
    before = flags_of(model)
    with using_adapter(model, name):
        assert adapter_in_use(model) == name
        assert flags_of(model) == before
        inside = model(IDS).logits
    assert flags_of(model) == before
    assert adapter_in_use(model) == "default"
    if name is None:
        with model.disable_adapter():
            expected = model(IDS).logits
    else:
        model.set_adapter(name)
        expected = model(IDS).logits
    assert torch.equal(inside, expected)


def test_our_switch_comes_back_when_the_body_fails(tiny_model):
    model = two_adapters(tiny_model)
    with (
        pytest.raises(ZeroDivisionError),
        using_adapter(model, None),
        using_adapter(model, "critic"),
    ):
        1 / 0  # noqa: B018
    assert adapter_in_use(model) == "default"
    with pytest.raises(AssertionError, match="no adapter 'other'"), using_adapter(model, "other"):
        pass


def test_every_role_keeps_what_is_trainable(tiny_model, tmp_path):
    model = built(
        tiny_model, reward_dir=save_reward(tiny_model, tmp_path / "reward"), critic="adapter"
    )
    before = flags_of(model)
    assert sum(before.values()) == 38
    for role in ("reference", "reward", "policy"):
        model(transcripts(), role)
        assert flags_of(model) == before
    model.requires_grad_(True)
    model.keep_trainable()
    assert flags_of(model) == before


# 2. Checkpointed layers are computed again with the adapter that is active then.


def joint_gradients(base, checkpointing, **options):
    """Of a loss of log-probabilities (adapter "default") and values (adapter "critic")."""
    model = built(base, critic="adapter", **options).train()
    with torch.no_grad():
        model.value_head.weight.fill_(0.3)
    if checkpointing == "ours":
        wishes = {"use_reentrant": True}  # which is not taken
        model.activation_checkpointing_enable(wishes, every_n_layers=1, offload=False)
    if checkpointing == "plain":
        inner = model.policy.get_base_model()
        inner.activation_checkpointing_enable({"use_reentrant": False})
    out = model(transcripts())
    (out.logps.sum() + out.values.square().sum()).backward()
    return gradients_of(model)


def test_checkpointing_gives_right_gradients_for_both_adapters_at_once(tiny_model):
    """The plain way computes the critic's layers again with the policy's adapter."""
    expected, ours, plain = (joint_gradients(tiny_model, how) for how in (None, "ours", "plain"))
    assert largest_gap(ours, expected) < 1e-5
    critic = [name for name in expected if ".critic." in name]
    assert len(critic) == 28
    assert all(float(expected[name].abs().max()) > 1e-3 for name in critic)
    gaps = [float((plain[n] - expected[n]).abs().max()) if n in plain else 1.0 for n in critic]
    assert max(gaps) > 1e-2


def test_checkpointing_with_adapters_of_other_shapes(tiny_model, tmp_path):
    options = {"reward_dir": save_reward(tiny_model, tmp_path / "reward")}
    expected, ours = (joint_gradients(tiny_model, how, **options) for how in (None, "ours"))
    assert len(expected) == 38
    assert largest_gap(ours, expected) < 1e-5


def test_checkpointing_leaves_the_policy_in_use(tiny_model, tmp_path):
    reward = save_reward(tiny_model, tmp_path / "reward")
    model = built(tiny_model, reward_dir=reward, critic="adapter").train()
    model.gradient_checkpointing_enable()
    out = model(transcripts())
    (out.logps.sum() + out.values.sum()).backward()
    assert adapter_in_use(model.policy) == "default"
    model.gradient_checkpointing_disable()
    assert not model.policy.get_base_model().is_activation_checkpointing


# The reference is the base itself; adapters on one base are as if apart.


def test_the_reference_is_the_pristine_base_exactly(tiny_model, tmp_path):
    model = built(tiny_model, reward_dir=save_reward(tiny_model, tmp_path / "reward"))
    bare = built(tiny_model, lora_config=None, separate_reference=load_policy(tiny_model))
    assert torch.equal(model(transcripts(), "reference").logps, bare(transcripts()).logps)


def trained(model, loss_of, weights, num_steps=5):
    optimizer = torch.optim.AdamW(weights, lr=0.01)
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def test_policy_and_critic_trained_on_one_base_equal_models_trained_apart(tiny_model, tmp_path):
    """Five steps of AdamW on the sum of the losses, against each alone: no difference at all."""
    reward = save_reward(tiny_model, tmp_path / "reward")
    together, actor, critic = (
        built(tiny_model, reward_dir=reward, critic="adapter") for _ in range(3)
    )

    def policy_loss(model):
        return model(transcripts()).logps.sum()

    def value_loss(model):
        return model(transcripts()).values.sub(1).square().sum()

    everything = together.policy_parameters() + together.critic_parameters()
    trained(together, lambda model: policy_loss(model) + value_loss(model), everything)
    trained(actor, policy_loss, actor.policy_parameters())
    trained(critic, value_loss, critic.critic_parameters())
    for ours, theirs in (
        (together.policy_parameters(), actor.policy_parameters()),
        (together.critic_parameters(), critic.critic_parameters()),
    ):
        assert len(ours) == len(theirs) > 5
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_an_adapter_of_the_reward_stage_scores_here_as_there(tiny_model, tmp_path):
    heads = {"helpful": 0.5, "short": -1.5}
    reward = save_reward(tiny_model, tmp_path / "reward", num_members=3, heads=heads)
    model = built(tiny_model, reward_dir=reward)
    alone = RewardModel.load(reward)
    for member, head in zip(
        ("reward", "reward-2", "reward-3"),
        reward_head(alone.model).modules_to_save.values(),
        strict=True,
    ):
        ours = reward_head(model.policy).modules_to_save[member].weight
        assert torch.equal(ours, head.weight)
    rows = [[*prompt, *completion] for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)]
    raw = model(transcripts(), "reward")
    torch.testing.assert_close(raw, alone.all_scores_ids(rows).raw, atol=1e-5, rtol=0)


# 3. DDP waits for every trained weight in each backward pass, unless it looks for unused ones.


@pytest.fixture
def one_rank():
    """A process group of this process alone: DDP then counts weights all the same."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_one_backward_has_every_weight_that_ddp_waits_for(critic, one_rank, tiny_model, tmp_path):
    """Two steps, checkpointed, with the passes that train nothing in between; the gradients are
    those without DDP. A backward pass of each loss alone is refused, so this can fail.
    """
    options = {"critic": critic, "reward_dir": save_reward(tiny_model, tmp_path / "reward")}
    found = {}
    for name in ("alone", "ddp"):
        model = built(tiny_model, **options).train()
        model.activation_checkpointing_enable()
        wrapped = DistributedDataParallel(model) if name == "ddp" else model  # looks for none
        for _ in range(2):
            with torch.no_grad():
                wrapped(transcripts(), "reference")
                wrapped(transcripts(), "reward")
            model.zero_grad()
            out = wrapped(transcripts())
            (out.logps.sum() + out.values.sub(1).square().sum()).backward()
        found[name] = gradients_of(model)
    assert len(found["ddp"]) == len(model.policy_parameters() + model.critic_parameters())
    assert largest_gap(found["ddp"], found["alone"]) < 1e-6

    out = wrapped(transcripts())
    out.logps.sum().backward()
    with pytest.raises(RuntimeError, match="parameters that were not used"):
        wrapped(transcripts())


# 4. The optimizer is built from what is trainable at that moment.


def test_what_is_trainable_is_the_policy_and_the_critic_from_the_start(tiny_model, tmp_path):
    reward = save_reward(tiny_model, tmp_path / "reward", num_members=2)
    for critic in ("head", "adapter"):
        model = built(tiny_model, reward_dir=reward, critic=critic)
        trainable = {id(each) for each in model.parameters() if each.requires_grad}
        named = model.policy_parameters() + model.critic_parameters()
        assert trainable == {id(each) for each in named}
        assert len(named) == len(trainable)


# 5. On a bf16 base PEFT keeps LoRA in fp32 but copies a head in bf16.


@pytest.mark.parametrize("compute", ["base", "weights"])
def test_lora_and_heads_are_fp32_on_a_bf16_base(compute, tiny_model, tmp_path):
    reward = save_reward(tiny_model, tmp_path / "reward", num_members=2)
    base = load_policy(tiny_model, dtype="bfloat16")
    options = {"reward_dir": reward, "critic": "adapter", "lora_compute": compute}
    model = ActorCritic.build(base, lora_config=lora(), **options)
    small = {n: w for n, w in model.named_parameters() if "lora_" in n or "_head" in n}
    small |= {n: w for n, w in model.named_parameters() if "modules_to_save" in n}
    assert len(small) > 40
    assert {weight.dtype for weight in small.values()} == {torch.float32}
    stored = reward_head(RewardModel.load(reward).model).modules_to_save["default"].weight
    assert torch.equal(reward_head(model.policy).modules_to_save["reward"].weight, stored)
    out = model(transcripts(), with_entropy=True)
    assert {each.dtype for each in out} == {torch.float32}
    (out.logps.sum() + out.values.sum()).backward()
    trained_ones = model.policy_parameters() + model.critic_parameters()
    assert {weight.grad.dtype for weight in trained_ones} == {torch.float32}
    assert model(transcripts(), "reward").dtype == torch.float32


def test_computing_in_the_bases_dtype_is_as_near_as_computing_in_fp32(tiny_model):
    """Errors of bf16 gradients against an fp32 base: rounding A and B adds little to rounding
    everything else.
    """

    def gradient(dtype, compute):
        torch.manual_seed(3)
        base = load_policy(tiny_model, dtype=dtype)
        model = ActorCritic.build(base, lora_config=lora(r=4), lora_compute=compute)
        (model(transcripts()).logps.sum()).backward()
        return torch.cat([weight.grad.flatten() for weight in model.policy_parameters()])

    exact, fast = gradient("float32", "weights"), gradient("float32", "base")
    assert float((fast - exact).norm() / exact.norm()) < 1e-5
    errors = {
        compute: float((gradient("bfloat16", compute) - exact).norm() / exact.norm())
        for compute in ("weights", "base")
    }
    assert 0 < errors["base"] < 2 * errors["weights"] < 0.2


# 6. Padding, with a pad token inside a completion.


def test_padding_changes_nothing(tiny_model, tmp_path):
    reward = save_reward(tiny_model, tmp_path / "reward")
    model = built(tiny_model, reward_dir=reward, critic="adapter")
    wide = transcripts()
    long = Transcripts.pack([*PROMPTS, [7] * 30], [*COMPLETIONS, [9] * 40], 0)
    for role in ("policy", "reference"):
        ours, padded = model(wide, role), model(long, role)
        for one, other in zip(ours, padded, strict=True):
            if one is not None:
                torch.testing.assert_close(one, other[:3, :4], atol=1e-5, rtol=0)
                assert not one[~wide.completion_mask].any()
    scores, padded = model(wide, "reward"), model(long, "reward")
    torch.testing.assert_close(scores, padded[:, :3], atol=1e-5, rtol=0)
    eos_is_pad = Transcripts.pack(PROMPTS, COMPLETIONS, 2)  # completions end with 2
    torch.testing.assert_close(model(eos_is_pad).logps, model(wide).logps, atol=1e-5, rtol=0)


# 7. Rows of different adapters in one pass are refused in train mode: we never ask for them.


def test_all_roles_work_in_train_mode_and_say_the_same(tiny_model, tmp_path):
    """Dropout too would make a policy differ from itself; it is taken out."""
    reward = save_reward(tiny_model, tmp_path / "reward")
    options = {"lora_config": lora(lora_dropout=0.5), "reward_dir": reward}
    model = built(tiny_model, **options)
    for role in ("policy", "reference", "reward"):
        said = [model.train(mode)(transcripts(), role) for mode in (True, False)]
        first, second = (each if role == "reward" else each.logps for each in said)
        assert torch.equal(first, second)
