"""A linear map whose weight is written anew at each sync, in the form that decodes fastest."""

from typing import Any

import torch
from torch import Tensor, nn

_OPS = torch.ops.mkldnn


class MergedLinear(nn.Module):
    """x W^T + b with a W that `write` sets; no gradients, and no parameters of its own.

    For bf16 on a CPU, oneDNN keeps W in blocks, where every call on a plain matrix would order it
    so again: a third of the time at 16 rows, and the same result bit for bit.
    """

    def __init__(self, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = bias
        self.matrix: Any = None  # plain [out, in], or oneDNN's blocks
        self.blocked = False

    def write(self, weight: Tensor) -> None:
        """Take over `weight` [out, in], which stays the caller's."""
        self.blocked = _blocks_pay(weight)
        with torch.inference_mode(False), torch.no_grad():
            self.matrix = (
                _OPS._reorder_linear_weight(weight.contiguous()) if self.blocked else weight.clone()
            )

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        if self.blocked:
            result: Tensor = _OPS._linear_pointwise(hidden, self.matrix, self.bias, "none", [], "")
            return result
        return nn.functional.linear(hidden, self.matrix, self.bias)


def _blocks_pay(weight: Tensor) -> bool:
    known = hasattr(_OPS, "_reorder_linear_weight") and hasattr(_OPS, "_linear_pointwise")
    bf16_on_cpu = weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
    return bf16_on_cpu and known and _takes_bf16()


def _takes_bf16() -> bool:
    """Whether this CPU multiplies bf16 by oneDNN at all."""
    return bool(torch.backends.mkldnn.is_available() and _OPS._is_mkldnn_bf16_supported())
