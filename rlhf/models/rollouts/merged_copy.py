"""Sampling from a copy of the base with the adapter merged in: a base of plain matrices.

The base itself is never merged into: W + BA - BA is not W in floating point, and the base would
drift a little with every rollout.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rlhf.models.rollouts.decoding import decode
from rlhf.models.rollouts.engine import Sampled, Sampling
from rlhf.models.rollouts.merged_linear import MergedLinear
from rlhf.models.rollouts.whole_weights import is_sharded, whole


class MergedCopy:
    """Samples from W + scale * BA, written anew from the frozen W at each `sync`.

    Only the matrices that the adapter named `adapter` changes are the copy's own; everything else
    (embeddings, head, norms) is the base's memory. Made before a launcher shards the policy; a
    sync then gathers what it needs. `obstacle` says which policies it cannot serve.
    """

    name = "merged copy"

    def __init__(
        self,
        policy: Any,
        sampling: Sampling,
        *,
        adapter: str = "default",
        why: str = "it was asked for",
    ) -> None:
        reason = obstacle(policy, adapter)
        assert reason is None, reason
        self.sampling = sampling
        self.adapter = adapter
        self.why = why
        self._layers: list[tuple[Any, MergedLinear]] = []  # LoRA layer, its twin in the copy
        self.model: Any = self._copied(policy.get_base_model())
        self.sync()

    def _copied(self, base: Any) -> Any:
        """`base` without adapters: the same modules and memory, but for the changed matrices."""
        memo: dict[int, Any] = {}
        for tensor in (*base.parameters(), *base.buffers()):
            memo[id(tensor)] = tensor
        for module in base.modules():  # which may hold on to the whole policy
            recompute = module.__dict__.get("_gradient_checkpointing_func")
            memo[id(recompute)] = recompute
        for module in _adapted(base):
            memo[id(module)] = self._twin(module, memo)
        model = copy.deepcopy(base, memo)
        for module in model.modules():
            module.__dict__.pop("forward", None)  # a trainer's wrapping of the policy's own
        return model.eval()

    def _twin(self, module: Any, memo: dict[int, Any]) -> Any:
        """What stands in the copy for one module that PEFT wrapped; `memo` is deepcopy's."""
        if not _changes(module, self.adapter):
            return copy.deepcopy(_unwrapped(module), memo)
        twin = MergedLinear(module.get_base_layer().bias)
        self._layers.append((module, twin))
        return twin

    def sync(self) -> None:
        """Write W + scale * BA of the policy's present A and B, summed in fp32 and cast once."""
        assert self.model is not None, "the engine is closed"
        with torch.no_grad():
            for layer, twin in self._layers:
                frozen = whole(layer.get_base_layer().weight)
                frozen = frozen.T if layer.fan_in_fan_out else frozen  # [out, in]
                twin.write((frozen.float() + self._delta(layer)).to(frozen.dtype))
            # Memory that is shared has moved with the base, buffers have not.
            self.model.to(frozen.device)

    def _delta(self, layer: Any) -> Tensor:
        """scale * BA [out, in] in fp32."""
        down = whole(layer.lora_A[self.adapter].weight).float()  # [r, in]
        up = whole(layer.lora_B[self.adapter].weight).float()  # [out, r]
        return (up @ down) * layer.scaling[self.adapter]

    def sample(
        self, prompt_ids: list[list[int]], *, seed: int, first_row: int = 0
    ) -> list[Sampled]:
        """See RolloutEngine."""
        assert self.model is not None, "the engine is closed"
        return decode(self.model, prompt_ids, self.sampling, seed=seed, first_row=first_row)

    def describe(self) -> str:
        """In words which engine this is, and why it was chosen."""
        return f"rollouts from a copy of the base with the adapter merged in: {self.why}"

    def close(self) -> None:
        """Give the copy's memory back."""
        self.model = None
        self._layers = []


def obstacle(policy: Any, adapter: str) -> str | None:
    """Why no merged copy can stand for the adapter of `policy`, in words; None when it can."""
    if not hasattr(policy, "get_base_model"):
        return "the policy has no adapter, so it is plain already"
    base = policy.get_base_model()
    if adapter not in policy.peft_config:
        return f"the policy has no adapter called {adapter!r}"
    if str(policy.peft_config[adapter].peft_type.value) != "LORA":
        return f"{policy.peft_config[adapter].peft_type.value} is not LoRA"
    if any(is_sharded(weight) for weight in base.parameters()):
        return "the policy was sharded over processes before the copy could be made"
    if len(set(getattr(base, "hf_device_map", {}).values())) > 1:
        return "the base is spread over several devices"
    reasons = (_layer_obstacle(module, adapter) for module in _adapted(base))
    return next((reason for reason in reasons if reason), None)


def _layer_obstacle(module: Any, adapter: str) -> str | None:
    from peft.tuners import lora

    from rlhf.models.lora_compute import BaseDtypeLinear

    if not _changes(module, adapter):
        return None
    kind = type(module).__name__
    if type(module) not in (lora.Linear, BaseDtypeLinear):
        return f"the adapter changes a layer that cannot be merged ({kind})"
    if module.merged:
        return "the adapter is merged into the base already"
    layer = module.get_base_layer()
    if not layer.weight.is_floating_point() or type(layer).__name__ not in ("Linear", "Conv1D"):
        return f"the base layer is a {type(layer).__name__}, not a plain matrix"
    if adapter in module.lora_variant:
        return f"the adapter is a variant of LoRA ({type(module.lora_variant[adapter]).__name__})"
    if module.lora_bias.get(adapter):
        return "the adapter has biases (lora_bias)"
    return None


def _adapted(base: Any) -> Iterator[Any]:
    """Every outermost module that PEFT put in the place of the base's own."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    inside: set[int] = set()
    for module in base.modules():
        if id(module) in inside:
            continue
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            inside.update(id(part) for part in module.modules())
            yield module


def _changes(module: Any, adapter: str) -> bool:
    """Whether `adapter` has weights of its own in a module that PEFT wrapped."""
    return any(adapter in name.split(".") for name, _ in module.named_parameters())


def _unwrapped(module: Any) -> Any:
    """The base's own module under PEFT's."""
    if hasattr(module, "get_base_layer"):
        return module.get_base_layer()
    return module.original_module


def copy_size(policy: Any, adapter: str) -> int:
    """Bytes that a merged copy takes beside the base."""
    layers = (module for module in _adapted(policy.get_base_model()) if _changes(module, adapter))
    weights = (module.get_base_layer().weight for module in layers)
    return sum(weight.numel() * weight.element_size() for weight in weights)


def free_bytes(policy: Any) -> int:
    """Memory that is free where the policy is, in bytes."""
    device = next(policy.parameters()).device
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
