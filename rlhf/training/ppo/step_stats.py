"""What optimizer steps measure, from micro-batches to the numbers of a step."""

from collections.abc import Mapping
from typing import Any

import torch


class StepStats:
    """What the optimizer steps measured: a number of each step and name, of this process."""

    def __init__(self) -> None:
        self.steps: dict[str, list[torch.Tensor]] = {}
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, sums: Mapping[str, torch.Tensor]) -> None:
        """One micro-batch's sums over its tokens; of `*_max` the largest stays."""
        for name, value in sums.items():
            value = value.detach().double() if value.device.type != "mps" else value.detach()
            if name not in self._sums:
                self._sums[name] = value
            elif name.endswith("_max"):
                self._sums[name] = torch.maximum(self._sums[name], value)
            else:
                self._sums[name] = self._sums[name] + value

    def finish(
        self, total: torch.Tensor | float, names: Mapping[str, str]
    ) -> dict[str, torch.Tensor]:
        """End a step of `total` tokens (of all processes): its means, under their names."""
        means = {}
        for name, value in self._sums.items():
            if name in names:
                means[names[name]] = value if name.endswith("_max") else value / total
        self._sums = {}
        return means

    def append(self, means: Mapping[str, torch.Tensor]) -> None:
        """Keep a finished step."""
        for name, value in means.items():
            self.steps.setdefault(name, []).append(value)

    def stacked(self) -> dict[str, torch.Tensor]:
        """[num_steps] of each name."""
        return {name: torch.stack(values) for name, values in self.steps.items()}

    def clear(self) -> None:
        """Begin anew."""
        self.steps = {}

    def state_dict(self) -> dict[str, Any]:
        """The finished steps; checkpoints are at the end of one."""
        return {name: values.cpu() for name, values in self.stacked().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.steps = {name: list(values.unbind()) for name, values in state.items()}
