"""Policy, critic, reference and reward model on one frozen base, behind one forward pass."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rlhf.models import actor_critic_saving as saving
from rlhf.models.adapters import checkpoint_contexts, is_of_adapter, using_adapter
from rlhf.models.chunked_head import model_logps
from rlhf.models.loading import backbone_of, reward_head
from rlhf.models.reward_spec import DEFAULT_MEMBER
from rlhf.models.transcripts import Transcripts

POLICY_ADAPTER = DEFAULT_MEMBER
CRITIC_ADAPTER = "critic"
REWARD_ADAPTER = "reward"
Role = Literal["policy", "reference", "reward"]
Critic = Literal["head", "adapter"]
CriticInit = Literal["auto", "reward", "zero"]


class TokenOutputs(NamedTuple):
    """What policy or reference say of each completion token; all [B, T], 0 at padding.

    `logps` in nats at the temperature asked for; `entropies` in nats of the distribution that the
    token was drawn from, None unless asked for; `values` before each token was chosen, None of
    the reference.
    """

    logps: Tensor
    entropies: Tensor | None
    values: Tensor | None


class ActorCritic(nn.Module):  # type: ignore[misc]
    """The four models of PPO. Every forward pass goes through this module, so that the hooks of
    DDP and FSDP see it.

    `policy` is a PeftModel whose adapter "default" is trained, or a whole causal language model.
    `separate_reference` is the frozen copy beside a whole one. The critic is `value_head`, on the
    policy's own trunk or on that of the adapter "critic" of the frozen base.
    """

    def __init__(
        self,
        policy: nn.Module,
        value_head: nn.Linear,
        *,
        critic: Critic = "head",
        separate_reference: nn.Module | None = None,
        rewards: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """`rewards`: of each reward model its members' adapters, which lie on the frozen base."""
        super().__init__()
        self.policy = policy
        self.value_head = value_head
        self.critic = critic
        self.separate_reference = separate_reference
        self.rewards = {name: list(members) for name, members in (rewards or {}).items()}
        self.requires_grad_(False)
        self.keep_trainable()

    @classmethod
    def build(cls, base: Any, **options: Any) -> "ActorCritic":
        """See `rlhf.models.actor_critic_building.build`."""
        from rlhf.models.actor_critic_building import build

        return build(base, **options)

    @property
    def uses_lora(self) -> bool:
        """Whether the policy is an adapter, and its base everything else's too."""
        return hasattr(self.policy, "peft_config")

    @property
    def frozen(self) -> Any:
        """What carries reference, reward and critic adapters; None in full fine-tuning without."""
        return self.policy if self.uses_lora else self.separate_reference

    @property
    def config(self) -> Any:
        """The causal language model's own configuration."""
        return self.policy.config

    @property
    def device(self) -> torch.device:
        """Where the value head is, and everything with it."""
        return self.value_head.weight.device

    def forward(
        self,
        transcripts: Transcripts,
        role: Role = "policy",
        *,
        temperature: float = 1.0,
        with_entropy: bool = False,
        entropy_grad: bool = False,
        reward: str | None = None,
    ) -> Any:
        """TokenOutputs of policy or reference; of the role "reward" raw scores [K, B, H] float32
        of its K members and H heads at each transcript's last token.

        `reward` names the reward model where there are several, the first unless given.
        """
        if role == "reward":
            return self._raw_scores(transcripts, reward)
        model, adapter = self._of_role(role)
        with self._using(model, adapter):
            states = before_completions(model, transcripts)  # [N, hidden]
            logps, entropies = model_logps(
                model,
                states,
                transcripts.completion_ids[transcripts.completion_mask],
                temperature=temperature,
                with_entropy=with_entropy,
                entropy_grad=entropy_grad,
            )
        values = self._values(states, transcripts) if role == "policy" else None
        spread = partial(_spread, mask=transcripts.completion_mask)
        return TokenOutputs(spread(logps), spread(entropies), spread(values))

    def policy_parameters(self) -> list[nn.Parameter]:
        """What is trained of the policy: its adapter, or all of it."""
        if not self.uses_lora:
            return list(self.policy.parameters())
        named = self.policy.named_parameters()
        return [weight for name, weight in named if is_of_adapter(name, POLICY_ADAPTER)]

    def critic_parameters(self) -> list[nn.Parameter]:
        """The value head, and the critic's own adapter if it has one."""
        names = set(self.critic_names())
        return [weight for name, weight in self.named_parameters() if name in names]

    def critic_names(self) -> list[str]:
        """The names of the critic's parameters in this module."""
        owners = {"value_head", CRITIC_ADAPTER} if self.critic == "adapter" else {"value_head"}
        return [name for name, _ in self.named_parameters() if owners & set(name.split("."))]

    def keep_trainable(self) -> None:
        """Make policy and critic trainable, and nothing else that PEFT may have made so."""
        trained = {id(weight) for weight in self.policy_parameters() + self.critic_parameters()}
        for weight in self.parameters():
            if weight.requires_grad != (id(weight) in trained):
                weight.requires_grad_(id(weight) in trained)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Any = None, **choices: Any
    ) -> None:
        """Compute layers again in the backward pass, each with the adapter of its forward pass.

        Arguments as those of transformers' models; it is never the reentrant kind.
        """
        for model in self._models():
            options = {**(activation_checkpointing_kwargs or {}), "use_reentrant": False}
            if hasattr(model, "peft_config"):
                options["context_fn"] = partial(checkpoint_contexts, model)
                model = model.get_base_model()
            model.activation_checkpointing_enable(
                activation_checkpointing_kwargs=options, **choices
            )

    def activation_checkpointing_disable(self) -> None:
        """Keep the layers' activations for the backward pass."""
        for model in self._models():
            model.activation_checkpointing_disable()

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Any = None, **choices: Any
    ) -> None:
        """The same by its older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **choices)

    def gradient_checkpointing_disable(self) -> None:
        """The same by its older name."""
        self.activation_checkpointing_disable()

    def save_policy(self, folder: str | Path, *, is_main: bool = True) -> None:
        """Write the policy, and nothing else's weights: a plain PEFT adapter, or a whole model.

        Where weights are sharded every rank must call this; only the main one writes.
        """
        saving.save_policy(self, Path(folder), is_main=is_main)

    def save_critic(self, folder: str | Path, *, is_main: bool = True) -> None:
        """Write the value head and the critic's adapter; ranks as for `save_policy`."""
        saving.save_critic(self, Path(folder), is_main=is_main)

    def load_policy(self, folder: str | Path) -> None:
        """Read what `save_policy` wrote; DataError naming what is missing or does not fit."""
        saving.load_policy(self, Path(folder))

    def load_critic(self, folder: str | Path) -> None:
        """Read what `save_critic` wrote; DataError naming what is missing or does not fit."""
        saving.load_critic(self, Path(folder))

    def _models(self) -> list[Any]:
        models = (self.policy, self.separate_reference)
        return [model for model in models if model is not None]

    def _of_role(self, role: Role) -> tuple[Any, str | None]:
        """The model that computes for a role, and its adapter."""
        if role == "policy":
            return self.policy, POLICY_ADAPTER if self.uses_lora else None
        assert self.frozen is not None, "no reference: full fine-tuning needs a separate one"
        return self.frozen, None

    def _using(self, model: Any, adapter: str | None) -> AbstractContextManager[None]:
        return using_adapter(model, adapter) if hasattr(model, "peft_config") else nullcontext()

    def _values(self, states: Tensor, transcripts: Transcripts) -> Tensor:
        """Values [N] from the policy's own states [N, hidden], or from the critic adapter's."""
        if self.critic == "adapter":
            with using_adapter(self.frozen, CRITIC_ADAPTER):
                states = before_completions(self.frozen, transcripts)
        return self.value_head(states.to(self.value_head.weight.dtype))[:, 0]

    def _raw_scores(self, transcripts: Transcripts, reward: str | None) -> Tensor:
        assert self.rewards, "no reward model on this base"
        members = self.rewards[reward or next(iter(self.rewards))]
        last = transcripts.starts + transcripts.lengths - 1  # [B]
        rows = torch.arange(len(last), device=last.device)
        values = []
        for member in members:
            with using_adapter(self.frozen, member):
                states = backbone_of(self.frozen)(transcripts.ids, use_cache=False)[0]
                values.append(reward_head(self.frozen)(states[rows, last].float()).float())
        return torch.stack(values)  # [K, B, H]


def before_completions(model: Any, transcripts: Transcripts) -> Tensor:
    """States [N, hidden] that predict the N completion tokens, row by row.

    Padding stands on the right, where causal attention does not look: without a mask the states
    are the same, and attention's own causal kernels run. No state is needed of a last token.
    """
    states = backbone_of(model)(transcripts.ids[:, :-1], use_cache=False)[0]
    mask = transcripts.completion_mask  # [B, T]
    rows = torch.arange(len(mask), device=mask.device)[:, None].expand_as(mask)
    return states[rows[mask], transcripts.predicting[mask]]


def _spread(flat: Tensor | None, mask: Tensor) -> Tensor | None:
    """[B, T] with the values `flat` [N] where `mask` is True, 0 elsewhere."""
    if flat is None:
        return None
    return flat.new_zeros(mask.shape).masked_scatter(mask, flat)
