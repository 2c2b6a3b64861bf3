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
