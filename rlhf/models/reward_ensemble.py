"""An ensemble of reward models on one frozen base: an adapter and a head for each member."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from rlhf.models.adapters import is_of_adapter, load_another, using_adapter
from rlhf.models.loading import reward_head
from rlhf.models.reward_spec import DEFAULT_MEMBER, RewardSpec


def member_names(num_members: int) -> list[str]:
    """The adapters' names: PEFT's "default", then member-2, member-3, ..."""
    return [DEFAULT_MEMBER, *(f"member-{number}" for number in range(2, num_members + 1))]


def members_of(model: Any) -> list[str]:
    """The members that `model` carries; one called "default" when it is no PeftModel."""
    return list(getattr(model, "peft_config", None) or [DEFAULT_MEMBER])


def add_members(model: Any, num_members: int, *, seed: int) -> list[str]:
    """Put more adapters and heads onto a PeftModel that has one; the names of all `num_members`.

    Each is drawn anew, the k-th (from 0) with `seed + k`, so that members differ from the start;
    the first stays as it is. All are fp32 and trainable, the first is the active one.
    """
    names = member_names(num_members)
    lora = model.peft_config[DEFAULT_MEMBER]
    for index, name in enumerate(names[1:], 1):
        with _seeded(seed + index):
            model.add_adapter(name, deepcopy(lora))
        draw_head(model, name, seed=seed + index)
    keep_trainable(model)
    return names


def draw_head(model: Any, member: str, *, seed: int) -> None:
    """A fresh fp32 head for `member`, as transformers draws one: normal, `initializer_range`."""
    head = reward_head(model).modules_to_save[member].float()
    std = getattr(model.config.get_text_config(), "initializer_range", 0.02)
    with _seeded(seed), torch.no_grad():
        head.weight.normal_(mean=0.0, std=std)


def keep_trainable(model: Any) -> None:
    """Make every member's adapter and head trainable.

    PEFT's `set_adapter` freezes all members but one, and their gradients are then None without
    a word; transformers does that too when it continues from a checkpoint. Call this after
    loading one and before the optimizer is made.
    """
    if hasattr(model, "peft_config"):
        model.set_requires_grad(members_of(model), requires_grad=True)


def weights_of(model: Any, member: str) -> list[torch.nn.Parameter]:
    """What is trained of `member`: the weights of its adapter and its head."""
    return [
        weight
        for name, weight in model.named_parameters()
        if weight.requires_grad and is_of_adapter(name, member)
    ]


@contextmanager
def active_member(model: Any, member: str) -> Iterator[None]:
    """Within, `model` computes with this member; what is trainable stays as it is.

    With gradient checkpointing the backward pass computes again, with the member that is active
    then: run it inside the block.
    """
    if not hasattr(model, "peft_config"):
        yield
        return
    with using_adapter(model, member):
        yield


def load_members(model: Any, folder: Path) -> None:
    """Read every member's adapter and head in `folder` into `model`, which has these members.

    Trainability stays as it is. DataError when one of them is missing or does not fit.
    """
    trainable, training = _trainable(model), model.training
    spec = RewardSpec(members=members_of(model))
    spec.require_members(folder)
    for member in spec.members:
        load_another(model, spec.member_folder(folder, member), member)
    model.set_requires_grad(spec.members, requires_grad=trainable)
    model.train(training)


def _trainable(model: Any) -> bool:
    """Whether the members are being trained: asked of the heads, which always are."""
    heads = reward_head(model).modules_to_save.values()
    return any(weight.requires_grad for head in heads for weight in head.parameters())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Within, torch draws from `seed`; afterwards as if nothing had been drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
