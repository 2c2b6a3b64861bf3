"""LoRA layers that multiply in the base's dtype while their weights stay in float32.

On a bf16 base PEFT makes an fp32 copy of every layer's input and multiplies in fp32, which costs
most of a training step on a CPU, and keeps the copies for the backward pass. Here the two small
matrices are rounded instead, for one pass at a time:

    y = W x + b + s B (A x),   dx = W' g + s A' (B' g),   dA = s (B' g) x',   dB = s g (A x)'

with g the gradient of y. The products W x and B (A x) are added up in one piece of memory.
Optimizer and gradients see fp32 weights, as before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn
from torch.nn import functional


def compute_in_base_dtype(model: Any) -> int:
    """Make the LoRA layers of a PeftModel compute in their base's dtype; how many there are.

    Layers over anything but plain linear layers stay as they are.
    """
    return len(_changed(model))


@contextmanager
def computing_in_base_dtype(model: Any) -> Iterator[int]:
    """Within the block the LoRA layers of `model` compute so; how many there are."""
    layers = _changed(model)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            layer.__class__ = PeftLinear


def _changed(model: Any) -> list[Any]:
    layers = [module for module in model.modules() if type(module) is PeftLinear]
    for layer in layers:
        layer.__class__ = BaseDtypeLinear
    return layers


class BaseDtypeLinear(PeftLinear):  # type: ignore[misc]
    """PEFT's layer, but for plain LoRA on a frozen linear layer computed as above."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As PEFT's: [..., in] -> [..., out]."""
        if args or kwargs or self.merged or torch.is_autocast_enabled(x.device.type):
            return super().forward(x, *args, **kwargs)
        adapter = self._plain_adapter()
        base = self.base_layer
        if adapter is None or type(base) is not nn.Linear or base.weight.dtype != x.dtype:
            return super().forward(x)
        down, up = self.lora_A[adapter].weight, self.lora_B[adapter].weight
        product: Tensor = _LoraProduct.apply(
            x, base.weight, base.bias, down, up, self.scaling[adapter]
        )
        return product

    def _plain_adapter(self) -> str | None:
        """The only active adapter, where it is plain LoRA without dropout; else None."""
        if self.disable_adapters or len(self.active_adapters) != 1:
            return None
        adapter: str = self.active_adapters[0]
        if adapter not in self.lora_A or adapter in self.lora_variant:
            return None
        dropout = self.lora_dropout[adapter]
        if isinstance(dropout, nn.Dropout) and dropout.p > 0 and self.training:
            return None
        base: Any = self.base_layer
        frozen = not any(weight.requires_grad for weight in base.parameters())
        parts = base, self.lora_A[adapter], self.lora_B[adapter]
        if not frozen or parts[2].bias is not None or any(map(_does_more, parts)):
            return None
        return adapter


def _does_more(linear: Any) -> bool:
    """Whether calling a linear layer does more than a product: hooks gather its weights or bring
    them to the device (DeepSpeed, accelerate), or watch it.
    """
    hooks = linear._forward_hooks, linear._forward_pre_hooks, linear._backward_hooks
    return type(linear) is not nn.Linear or "forward" in vars(linear) or any(hooks)


class _LoraProduct(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
    ) -> Tensor:
        """[..., out] of x [..., in], weight [out, in], down [r, in] and up [out, r]."""
        rows = x.reshape(-1, x.shape[-1])  # [n, in]
        small_down, small_up = down.to(x.dtype), (up * scaling).to(x.dtype)
        inner = rows @ small_down.T  # [n, r]
        product = functional.linear(rows, weight, bias).addmm_(inner, small_up.T)  # [n, out]
        ctx.save_for_backward(rows, inner, weight, small_down, small_up)
        ctx.scaling, ctx.dtype = scaling, down.dtype
        return product.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        rows, inner, weight, small_down, small_up = ctx.saved_tensors
        gradient = grads[0].reshape(-1, weight.shape[0])  # [n, out]
        back = gradient @ small_up  # [n, r], times the scaling
        for_x = for_down = for_up = None
        if ctx.needs_input_grad[0]:
            for_x = (gradient @ weight).addmm_(back, small_down)
            for_x = for_x.view(*grads[0].shape[:-1], -1)
        if ctx.needs_input_grad[3]:
            for_down = (back.T @ rows).to(ctx.dtype)
        if ctx.needs_input_grad[4]:
            for_up = (gradient.T @ inner).to(ctx.dtype).mul_(ctx.scaling)
        return for_x, None, None, for_down, for_up, None
