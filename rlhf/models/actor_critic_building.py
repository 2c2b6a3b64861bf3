"""Putting policy, critic and reward adapters onto one base."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from rlhf.errors import ConfigError, DataError
from rlhf.models.actor_critic import (
    CRITIC_ADAPTER,
    POLICY_ADAPTER,
    REWARD_ADAPTER,
    ActorCritic,
    Critic,
    CriticInit,
)
from rlhf.models.adapters import base_of, is_adapter, is_of_adapter, load_another
from rlhf.models.chunked_head import model_logps
from rlhf.models.cpu_attention import use_short_row_attention
from rlhf.models.loading import backbone_of, reward_head
from rlhf.models.lora_compute import compute_in_base_dtype
from rlhf.models.registry import resolve_model
from rlhf.models.reward_checks import require_base, require_heads, require_tokenizer
from rlhf.models.reward_spec import HEAD_NAME, RewardSpec, base_record

_SEPARATELY = "--separate_reward_model true loads it on a base of its own"
_HEAD_TOLERANCE = 0.1  # nats, for sums of bf16 in another order


def build(
    base: Any,
    *,
    lora_config: Any = None,
    reward_dir: Path | str | Sequence[Path | str] | None = None,
    critic: Critic = "head",
    critic_init: CriticInit = "auto",
    separate_reference: Any = None,
    tokenizer: Any = None,
    lora_compute: Literal["base", "weights"] = "base",
) -> ActorCritic:
    """An ActorCritic on `base`, a causal language model.

    With `lora_config` the base is frozen and the policy is an adapter; without, all of it is
    trained, and reference, reward and critic adapters lie on `separate_reference`, a frozen copy.
    `reward_dir`: one folder or several of reward models that were trained as adapters on this
    base; the first is what the critic begins as, where `critic_init` says so. `tokenizer`: the
    policy's, which must be theirs too. LoRA weights and heads are fp32 whatever the base is, and
    `lora_compute` says in what they multiply: the base's dtype, or their own as PEFT does. Dropout
    is taken out.
    ConfigError for what cannot be combined, DataError for a reward model of another base or
    tokenizer, or a damaged one.
    """
    folders = [Path(resolve_model(each)) for each in _listed(reward_dir)]
    _refuse_impossible(lora_config, folders, critic, critic_init, separate_reference)
    specs = [_fitting_spec(folder, base, tokenizer) for folder in folders]
    _require_known_head(base)
    carrier = separate_reference if lora_config is None else _with_policy(base, lora_config)
    carrier, rewards = _with_rewards(carrier, folders, specs)
    as_reward = critic_init == "reward" or (
        critic_init == "auto" and critic == "adapter" and bool(rewards)
    )
    if critic == "adapter":
        carrier = _with_critic(carrier, lora_config, next(iter(rewards), None), copy=as_reward)
    _prepare([each for each in (base, separate_reference) if each is not None])
    if lora_compute == "base" and hasattr(carrier, "peft_config"):
        compute_in_base_dtype(carrier)
    return ActorCritic(
        base if lora_config is None else carrier,
        _value_head(base, carrier, specs[0] if as_reward else None),
        critic=critic,
        separate_reference=carrier if lora_config is None else None,
        rewards=rewards,
    )


def _with_policy(base: Any, lora_config: Any) -> Any:
    from peft import get_peft_model

    return get_peft_model(base, lora_config, adapter_name=POLICY_ADAPTER)


def _with_rewards(
    carrier: Any, folders: list[Path], specs: list[RewardSpec]
) -> tuple[Any, dict[str, list[str]]]:
    """(`carrier` with all reward models on it, the members' adapters by reward model)."""
    rewards: dict[str, list[str]] = {}
    for number, (folder, spec) in enumerate(zip(folders, specs, strict=True), 1):
        name = REWARD_ADAPTER if number == 1 else f"{REWARD_ADAPTER}_{number}"
        carrier, rewards[name] = _with_reward(carrier, folder, spec, name)
    return carrier, rewards


def _listed(reward_dir: Path | str | Sequence[Path | str] | None) -> list[Path | str]:
    if reward_dir is None:
        return []
    return [reward_dir] if isinstance(reward_dir, (str, Path)) else list(reward_dir)


def _refuse_impossible(
    lora_config: Any,
    folders: list[Path],
    critic: Critic,
    critic_init: CriticInit,
    separate_reference: Any,
) -> None:
    if critic_init == "reward" and not folders:
        raise ConfigError(
            "--critic_init reward: the critic begins as a reward model on the policy's own base, "
            "and there is none; use --critic_init auto"
        )
    if lora_config is None:
        if separate_reference is None and (folders or critic == "adapter"):
            raise ConfigError(
                "full fine-tuning changes the base that reward and critic adapters stand on; "
                f"train with --use_peft true, or with --critic head, and {_SEPARATELY}"
            )
    else:
        assert separate_reference is None, "under LoRA the reference is the base itself"
        if HEAD_NAME in (lora_config.modules_to_save or []):
            raise ConfigError(
                f"--lora_modules_to_save {HEAD_NAME}: that is the reward head's name, which a "
                "policy does not have; leave it out"
            )


def _require_known_head(base: Any) -> None:
    """ConfigError where a model makes more of its head's product than chunked_head knows of."""
    ids = torch.arange(1, 7, device=_device(base))[None]
    if ids.device.type == "meta":
        return
    was_training = base.training
    base.eval()
    with torch.no_grad():
        scores = base(ids, use_cache=False).logits[0].float()  # [6, V]
        own = scores.log_softmax(-1).gather(1, ids.mT)[:, 0]
        ours, _ = model_logps(base, backbone_of(base)(ids, use_cache=False)[0][0], ids[0])
    base.train(was_training)
    if not torch.allclose(own, ours, atol=_HEAD_TOLERANCE):
        raise ConfigError(
            f"{base.name_or_path}: models of type {base.config.model_type} shape their scores in a "
            "way that is not known here, so log-probabilities would be wrong; use rlhf rloo or "
            "grpo, or another base"
        )


def _fitting_spec(folder: Path, base: Any, tokenizer: Any) -> RewardSpec:
    """The spec of the reward model in `folder`, once it is sure that it belongs onto `base`."""
    if not is_adapter(folder):
        raise ConfigError(
            f"{folder}: a whole reward model, no adapter on the policy's base; {_SEPARATELY}"
        )
    spec = RewardSpec.read(folder)
    require_heads(folder, spec)
    own = str(base.name_or_path)
    recorded = spec.base or base_record(base_of(folder))
    try:
        require_base(folder, own, replace(spec, base=recorded))
    except DataError:
        raise ConfigError(
            f"{folder}: trained on {recorded['path']}, but the policy's base is {own}, with other "
            f"weights; train it on the policy's base, or {_SEPARATELY}"
        ) from None
    if tokenizer is not None:
        require_tokenizer(folder, tokenizer, spec)
    return spec


def _with_reward(carrier: Any, folder: Path, spec: RewardSpec, name: str) -> tuple[Any, list[str]]:
    """The PeftModel with every member of a reward model on it, and the members' adapter names."""
    from peft import LoraConfig

    names = [name, *(f"{name}-{number}" for number in range(2, len(spec.members) + 1))]
    _make_room_for_head(carrier, len(spec.heads))
    for adapter, member in zip(names, spec.members, strict=True):
        place = spec.member_folder(folder, member)
        carrier = _carrying(carrier, LoraConfig.from_pretrained(str(place)), adapter)
        load_another(carrier, place, adapter)
    return carrier, names


def _make_room_for_head(carrier: Any, num_heads: int) -> None:
    """Put a score head onto the base, in fp32, of which PEFT makes each adapter's own copy."""
    base = carrier.get_base_model() if hasattr(carrier, "peft_config") else carrier
    head = nn.Linear(_hidden_size(base), num_heads, bias=False, device=_device(base))
    existing = getattr(base, HEAD_NAME, None)
    if existing is None:
        setattr(base, HEAD_NAME, head)
    else:
        existing.original_module = head


def _carrying(carrier: Any, lora_config: Any, adapter: str) -> Any:
    """`carrier` as a PeftModel; one that is none yet gets `adapter` as its first."""
    from peft import PeftModel

    if isinstance(carrier, PeftModel):
        return carrier
    lora_config.task_type = None
    return PeftModel(carrier, lora_config, adapter)


def _with_critic(carrier: Any, lora_config: Any, reward: str | None, *, copy: bool) -> Any:
    """The PeftModel with a critic's adapter: shaped as the reward's if there is one, else as the
    policy's, with the reward adapter's weights where `copy` is set.
    """
    config = deepcopy(lora_config if reward is None else carrier.peft_config[reward])
    if config is None:
        raise ConfigError(
            "--critic adapter in full fine-tuning takes its shape from a reward model on the same "
            "base; give one, or use --critic head"
        )
    config.modules_to_save = None
    config.inference_mode = False
    config.task_type = None
    carrier.add_adapter(CRITIC_ADAPTER, config)
    if copy:
        assert reward is not None
        weights = dict(carrier.named_parameters())
        with torch.no_grad():
            for name, weight in weights.items():
                if is_of_adapter(name, CRITIC_ADAPTER):
                    parts = [reward if part == CRITIC_ADAPTER else part for part in name.split(".")]
                    weight.copy_(weights[".".join(parts)])
    return carrier


def _value_head(base: Any, carrier: Any, spec: RewardSpec | None) -> nn.Linear:
    """Zeros, or with `spec` the weighted heads of the first member of the first reward model."""
    head = nn.Linear(_hidden_size(base), 1, device=_device(base))
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        if spec is not None:
            heads = reward_head(carrier).modules_to_save[REWARD_ADAPTER].weight  # [H, hidden]
            weights = heads.new_tensor(list(spec.heads.values()))
            head.weight.copy_((weights[:, None] * heads).sum(0))
    return head


def _prepare(models: list[Any]) -> None:
    """Take dropout out, and on a CPU choose the attention that is fast there."""
    for model in models:
        use_short_row_attention(model)
        without_dropout(model)


def without_dropout(model: nn.Module) -> None:
    """Let dropout pass everything: the policy that learns must be the one that sampled.

    With it the same policy would give a token another probability each time, and the ratio of
    new and old say nothing. Models keep its rate in modules, or as a number of their layers' own.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def _hidden_size(model: Any) -> int:
    return int(model.config.get_text_config().hidden_size)


def _device(model: Any) -> torch.device:
    return next(iter(model.parameters())).device
