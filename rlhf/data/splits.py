"""Held out by a hash of the prompt: no prompt is on both sides, whatever else the data holds."""

import hashlib

from rlhf.errors import ConfigError
from rlhf.records import PromptContent, content_hash

_HASH_RANGE = 2**64


def is_held_out(prompt: PromptContent, fraction: float, seed: int = 0) -> bool:
    """Whether `prompt` belongs to the held-out `fraction` (0 to 1) of all prompts.

    It depends on nothing but the arguments, so a prompt stays on its side when data are added,
    and in every stage. ConfigError when `fraction` lies outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"--eval_fraction {fraction}: must be at least 0 and below 1")
    digest = hashlib.sha256(f"{seed}:{content_hash(prompt)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * _HASH_RANGE
