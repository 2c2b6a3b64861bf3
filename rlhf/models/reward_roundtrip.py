"""Whether a reward model scores the same whatever is done to it: padded, batched, saved, merged."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from rlhf.errors import ConfigError
from rlhf.models.adapters import adapter_chain
from rlhf.models.loading import load_reward_model, load_tokenizer
from rlhf.models.registry import resolve_model
from rlhf.models.reward_spec import DEFAULT_MEMBER, RewardSpec
from rlhf.models.scoring import RewardModel
from rlhf.records import PromptContent

SCRATCH_PREFIX = "rlhf-reward-"
"""How the folders begin that copies of a model are written to; a killed process leaves its own."""
_MORE_PADDING = 17  # tokens behind the longest row; any number will do that no kernel rounds to


def roundtrip_gaps(
    folder: str | Path,
    prompts: Sequence[PromptContent],
    completions: Sequence[str],
    ended: Sequence[bool | None] | None = None,
    *,
    batch_size: int = 16,
    scratch: Path | None = None,
) -> dict[str, float | None]:
    """The largest difference of a score, in fp32, from that of each transcript on its own.

    `padding`: with padding behind it; `batch`: among others, in another order; `loaded`: after
    saving and loading; `merged`: after merging the adapter into the base, saving and loading
    that (None for a whole model, which has nothing to merge). Each is over all members and
    heads, unweighted. `scratch` is where copies of the model are written and removed again
    (default: the system's); merging needs room for a whole model there. Errors as
    RewardModel.load.
    """
    scorer = RewardModel.load(folder)
    flags = [True] * len(prompts) if ended is None else ended
    rows = [
        scorer.renderer.transcript_ids(prompt, completion, flag)
        for prompt, completion, flag in zip(prompts, completions, flags, strict=True)
    ]
    alone = _raw(scorer, rows, batch_size=1)  # [K, B, H]
    backwards = _raw(scorer, rows[::-1], batch_size=batch_size).flip(1)
    padded = _raw(scorer, rows, batch_size=1, num_padding=_MORE_PADDING)
    gaps: dict[str, float | None] = {
        "padding": _gap(alone, padded),
        "batch": _gap(alone, backwards),
    }
    with TemporaryDirectory(dir=scratch, prefix=SCRATCH_PREFIX) as made:
        save_reward_model(scorer, Path(made) / "saved", resolve_model(folder))
        members, scorer = scorer.spec.members, RewardModel.load(Path(made) / "saved")
        gaps["loaded"] = _gap(alone, _raw(scorer, rows, batch_size=1))
        del scorer  # one model at a time in memory
        gaps["merged"] = _merged_gap(folder, Path(made), members, rows, alone)
    return gaps


def merged(model: Any, member: str = DEFAULT_MEMBER) -> Any:
    """`model`, a PeftModel in fp32, with one member's adapter merged in and its head: a plain
    sequence classifier. `model` is used up. ConfigError unless it is fp32: a small adapter
    merged in bf16 loses part of its effect.
    """
    if model.get_input_embeddings().weight.dtype != torch.float32:
        raise ConfigError("an adapter is merged in fp32; load the model with dtype float32")
    model.set_adapter(member)  # PEFT takes the active one's head
    return model.merge_and_unload(adapter_names=[member])


def save_merged(folder: str | Path, output: Path, member: str = DEFAULT_MEMBER) -> None:
    """Write the reward model in `folder` to `output` as a whole model that scores the same.

    Of an ensemble it is one member. `folder` may hold a whole model, which is then copied.
    Errors as RewardModel.load.
    """
    spec = RewardSpec.read(resolve_model(folder))
    model = load_reward_model(folder, device="cpu")
    if hasattr(model, "peft_config"):
        model = merged(model, member)
    model.save_pretrained(output)
    load_tokenizer(folder).save_pretrained(output)
    replace(spec, members=[DEFAULT_MEMBER], base=None).write(output)


def save_reward_model(scorer: RewardModel, output: Path, location: str) -> None:
    """Write `scorer`, loaded from `location`, to `output`: all members, tokenizer and spec.

    The adapters name their base by its whole path, so that `output` may be anywhere.
    """
    base, adapters = adapter_chain(location)
    if adapters:
        for config in scorer.model.peft_config.values():
            config.base_model_name_or_path = base
    scorer.model.save_pretrained(output)
    scorer.tokenizer.save_pretrained(output)
    scorer.spec.write(output)


def _merged_gap(
    folder: str | Path, scratch: Path, members: Sequence[str], rows: list[list[int]], alone: Tensor
) -> float | None:
    if not adapter_chain(resolve_model(folder))[1]:
        return None
    gaps = []
    for index, member in enumerate(members):
        with TemporaryDirectory(dir=scratch) as whole:
            save_merged(folder, Path(whole), member)
            found = _raw(RewardModel.load(whole), rows, batch_size=1)  # [1, B, H]
        gaps.append(_gap(alone[index : index + 1], found))
    return max(gaps)


def _raw(scorer: RewardModel, rows: Sequence[Sequence[int]], **options: int) -> Tensor:
    return scorer.all_scores_ids(rows, **options).raw


def _gap(scores: Tensor, others: Tensor) -> float:
    """The largest difference; infinite where a score is no number, since max would hide it."""
    gaps = (scores - others).abs()
    return float(gaps.max()) if bool(gaps.isfinite().all()) else inf
