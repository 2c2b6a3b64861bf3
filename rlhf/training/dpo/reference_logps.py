"""The reference's log-probabilities of all rows, computed once and kept under a hash.

A file holds those of one set of tokenised rows by one reference. Its name is the hash of all that
decides them, so that several runs can share a folder (--ref_cache_dir), and it says in its `key`
what that was: when data or model changed since, a line says which, and they are computed again.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset

from rlhf.data.columns import Columns
from rlhf.data.progress import progress
from rlhf.errors import StageError
from rlhf.manifest import make_folder
from rlhf.models.loading import load_tokenizer
from rlhf.records import content_hash
from rlhf.training.arguments import Settings
from rlhf.training.dpo.reference import (
    LOGPS_COLUMNS,
    reference_of,
    reference_sha256,
    release_reference,
)
from rlhf.training.fast_forward import fast_forward
from rlhf.training.stage import is_main

CACHE_NAME = "reference"
"""The folder in --output_dir, unless --ref_cache_dir names another."""
ID_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")
_KEY_SHOWN = {
    "reference": "the reference's weights",
    "computed": "dtype or quantisation",
    "vocabulary": "the tokenizer's number of entries",
    "ld_alpha": "ld_alpha",
    "rows": "the tokenised rows",
}


def cached_reference_logps(
    settings: Settings, train_rows: Columns, eval_rows: Columns
) -> tuple[Columns, Columns]:
    """The same rows with the reference's log-probabilities where a file holds them.

    Without --precompute_ref_log_probs, or where some are missing, the rows as they are. The main
    process looks for all, so that all go the same way.
    """
    if not settings.training.precompute_ref_log_probs:
        return train_rows, eval_rows
    found: list[Any] = [None]
    if is_main(settings):
        found = [_read(settings, [*train_rows, *eval_rows])]
    if settings.training.world_size > 1:
        broadcast_object_list(found)
    if found[0] is None:
        return train_rows, eval_rows
    logps, num_train = found[0], len(train_rows)
    return _with_logps(train_rows, logps[:num_train]), _with_logps(eval_rows, logps[num_train:])


def add_reference_logps(trainer: Any, settings: Settings) -> None:
    """Compute what the reference says of the trainer's rows, and keep it; nothing where rows carry
    it already. Afterwards a reference that was a model or an adapter of its own is let go.

    Every process computes its share of the batches, the main one writes. Must come before the
    first step: of all weights that are trained, the starting ones are the reference.
    """
    if not settings.training.precompute_ref_log_probs:
        return
    if LOGPS_COLUMNS[0] not in trainer.train_dataset.column_names:
        assert trainer.state.global_step == 0, "the policy is not the reference any more"
        datasets = [each for each in (trainer.train_dataset, trainer.eval_dataset) if each]
        rows = [row for dataset in datasets for row in dataset.select_columns(ID_COLUMNS)]
        if is_main(settings):
            _make_cache_folder(settings)
        with fast_forward(trainer, settings, quiet=True):
            logps = compute_reference_logps(trainer, rows)
        if is_main(settings):
            _write(settings, rows, logps)
        num_train = len(trainer.train_dataset)
        trainer.train_dataset = _with_columns(trainer.train_dataset, logps[:num_train])
        if trainer.eval_dataset is not None:
            trainer.eval_dataset = _with_columns(trainer.eval_dataset, logps[num_train:])
    trainer.precompute_ref_logps = True
    if not settings.stage.num_kl_prompts:  # which needs the reference to read what is sampled
        release_reference(trainer)


@torch.no_grad()
def compute_reference_logps(trainer: Any, rows: Columns) -> np.ndarray:
    """Summed log-probabilities [N, 2] of chosen and rejected under the trainer's reference, fp32.

    Pairs of like length share a batch; batches are dealt out to the processes in turn.
    """
    args = trainer.args
    size = args.precompute_ref_batch_size or args.per_device_train_batch_size
    order = sorted(range(len(rows)), key=lambda index: _num_tokens(rows[index]), reverse=True)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    mine = batches[args.process_index :: args.world_size]
    found: list[tuple[int, float, float]] = []
    model = trainer.ref_model or trainer.model
    was_training = model.training
    model.eval()  # dropout would make it another reference each time
    with progress("reference log-probabilities", sum(map(len, mine)), "pair") as advance:
        for batch in mine:
            columns = [{name: rows[index][name] for name in ID_COLUMNS} for index in batch]
            inputs = {
                key: value.to(args.device) for key, value in trainer.data_collator(columns).items()
            }
            chosen, rejected = trainer.compute_ref_log_probs(model, inputs)
            found += zip(batch, chosen.tolist(), rejected.tolist(), strict=True)
            advance(len(found), 0)
    model.train(was_training)
    everything = gather_object(found) if args.world_size > 1 else found
    logps = np.zeros((len(rows), 2), dtype=np.float32)
    for index, chosen_logp, rejected_logp in everything:
        logps[index] = chosen_logp, rejected_logp
    return logps


def cache_key(settings: Settings, rows: Columns) -> dict[str, Any]:
    """All that decides the log-probabilities of `rows`, each part as a hash or a value."""
    reference, model, training = reference_of(settings), settings.model, settings.training
    revision = model.model_revision if reference.kind == "start" else None
    dtypes = [model.dtype, model.load_in_4bit, model.load_in_8bit, training.bf16, training.fp16]
    dtypes += [model.bnb_4bit_quant_type, model.use_bnb_nested_quant] * bool(model.load_in_4bit)
    return {
        "reference": reference_sha256(reference.name, revision),
        "computed": content_hash([str(each) for each in dtypes]),
        # A tokenizer of more entries than the model has rows adds some, which take their share.
        "vocabulary": len(load_tokenizer(reference.name, revision=revision)),
        "ld_alpha": training.ld_alpha,
        "rows": content_hash([[row[name] for name in ID_COLUMNS] for row in rows]),
    }


def cache_folder(settings: Settings) -> Path:
    """Where the files lie."""
    named = settings.stage.ref_cache_dir
    return Path(named) if named else Path(settings.training.output_dir) / CACHE_NAME


def _read(settings: Settings, rows: Columns) -> np.ndarray | None:
    """[N, 2] of the file for these rows; None, and a line saying why, where there is none."""
    key = cache_key(settings, rows)
    folder = cache_folder(settings)
    path = _file_of(folder, key)
    if not path.is_file():
        _say_what_changed(folder, key)
        return None
    try:
        logps = _arrays_of(path)["logps"]
        if logps.shape != (len(rows), 2) or not np.isfinite(logps).all():
            raise ValueError(f"not {len(rows)} pairs of numbers")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        reason = " ".join(str(error).split())[:120]
        _say(f"{path}: damaged ({reason}); the reference log-probabilities are computed again")
        return None
    _say(f"reference log-probabilities of {len(rows)} pairs from {path}")
    return logps


def _make_cache_folder(settings: Settings) -> None:
    """Before what is to be kept there is computed; StageError when that cannot be."""
    option = "--ref_cache_dir" if settings.stage.ref_cache_dir else "--output_dir"
    make_folder(cache_folder(settings), option)


def _write(settings: Settings, rows: Columns, logps: np.ndarray) -> None:
    """Put the file in its place in one step; the run's own folder keeps no other."""
    key = cache_key(settings, rows)
    folder = cache_folder(settings)
    path = _file_of(folder, key)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as stream:
            np.savez(stream, key=np.array(json.dumps(key)), logps=logps)
        os.replace(temporary, path)
    except OSError as error:
        raise StageError(
            f"{path}: cannot be written ({error.strerror}); free space or give another "
            "--ref_cache_dir"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    if not settings.stage.ref_cache_dir:
        for other in folder.glob("*.npz"):
            if other != path:
                other.unlink(missing_ok=True)


def _say_what_changed(folder: Path, key: dict[str, Any]) -> None:
    """One line where other files are there: in what the nearest differs."""
    keys = [found for path in sorted(folder.glob("*.npz")) if (found := _key_of(path))]
    if not keys:
        return
    differing = min(
        ([name for name in key if found.get(name) != key[name]] for found in keys), key=len
    )
    changed = " and ".join(_KEY_SHOWN[name] for name in differing)
    _say(
        f"{folder}: reference log-probabilities of another run; {changed} changed since, so they "
        "are computed again"
    )


def _arrays_of(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _key_of(path: Path) -> dict[str, Any] | None:
    try:
        key = json.loads(str(_arrays_of(path)["key"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return key if isinstance(key, dict) else None


def _with_columns(dataset: Dataset, logps: np.ndarray) -> Dataset:
    for index, name in enumerate(LOGPS_COLUMNS):
        dataset = dataset.add_column(name, logps[:, index].astype(float).tolist())
    return dataset


def _with_logps(rows: Columns, logps: np.ndarray) -> Columns:
    return [
        row | dict(zip(LOGPS_COLUMNS, map(float, pair), strict=True))
        for row, pair in zip(rows, logps, strict=True)
    ]


def _file_of(folder: Path, key: dict[str, Any]) -> Path:
    return folder / f"{content_hash(key)[:32]}.npz"


def _num_tokens(row: dict[str, Any]) -> int:
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def _say(words: str) -> None:
    print(words, file=sys.stderr)
