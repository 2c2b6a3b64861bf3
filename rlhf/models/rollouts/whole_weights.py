"""Weights that a launcher has spread over processes, put together again."""

from torch import Tensor


def is_sharded(weight: Tensor) -> bool:
    """Whether this process holds only a part of `weight` (FSDP2, DeepSpeed ZeRO-3)."""
    return hasattr(weight, "full_tensor") or hasattr(weight, "ds_id")


def whole(weight: Tensor) -> Tensor:
    """The whole of `weight`, detached; gathered from all processes where FSDP2 shards it."""
    gather = getattr(weight, "full_tensor", None)
    return (weight if gather is None else gather()).detach()
