"""Sums and maxima over all processes of a run."""

from typing import Any

from torch import Tensor


class OverRanks:
    """Mixin for a transformers Trainer; of one process alone, tensors come back as they are."""

    args: Any
    accelerator: Any

    def reduce(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes, on its own device."""
        if self.args.world_size == 1:
            return tensor
        summed: Tensor = self.accelerator.reduce(tensor.to(self.args.device), reduction="sum")
        return summed.to(tensor.device)

    def reduce_max(self, tensor: Tensor) -> Tensor:
        """The largest of `tensor` over all processes, elementwise."""
        if self.args.world_size == 1:
            return tensor
        gathered: Tensor = self.accelerator.gather(tensor.to(self.args.device)[None])
        return gathered.amax(0).to(tensor.device)
