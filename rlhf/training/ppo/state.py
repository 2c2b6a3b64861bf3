"""What a checkpoint of PPO holds beside weights, optimizer and the Trainer's own state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rlhf.errors import DataError

CRITIC_NAME = "critic"
_AGAIN = "put it back, or begin anew with --restart"


_PARTS = {
    "sampler": "sampler",  # which prompts are next
    "loader": "loader",  # the rollout at hand, and how far it has been learnt from
    "kl": "kl",  # the price of a nat
    "rewards": "sources",  # running statistics of the scores
    "watch": "watch",  # what the warnings have seen
    "progress": "progress",  # what is measured and not yet logged
}
"""What is kept of a PPOTrainer beside weights and optimizer, and its attribute for each. There is
no generator among them: all draws are seeded by the run's seed and the rollout's number.
"""


def state_of(trainer: Any) -> dict[str, Any]:
    """Where a trainer stands on this process, down to the rollout at hand."""
    return {name: getattr(trainer, own).state_dict() for name, own in _PARTS.items()}


def restore(trainer: Any, state: Mapping[str, Any]) -> None:
    """Put a trainer where `state_of` another was taken; its loader has moved already."""
    for name, own in _PARTS.items():
        if name != "loader":
            getattr(trainer, own).load_state_dict(state[name])


def state_path(folder: Path, process_index: int) -> Path:
    """Where one process keeps its state."""
    return folder / f"ppo_state_{process_index}.pt"


def write_state(folder: Path, process_index: int, state: Mapping[str, Any]) -> None:
    """Save tensors and plain values; what `read_state` reads."""
    torch.save(dict(state), state_path(folder, process_index))


def read_state(folder: Path, process_index: int) -> dict[str, Any]:
    """The state of one process; DataError when it is missing or damaged."""
    path = state_path(folder, process_index)
    if not path.is_file():
        raise DataError(f"{folder}: the checkpoint lacks {path.name}; {_AGAIN}")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: damaged ({reason}); {_AGAIN}") from None
    return state


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
