"""Writing a stage's weights so that what was there before survives until all of it is new."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from rlhf.errors import StageError
from rlhf.manifest import make_folder

_STAGING_NAME = ".saving"
WEIGHT_PATTERNS = (
    *("model*.safetensors", "model*.safetensors.index.json", "adapter_model.*"),
    "adapter_config.json",  # one left behind would make an adapter of a whole model's folder
)


@contextmanager
def replacing_files(folder: Path, *, is_main: bool = True) -> Iterator[Path]:
    """A folder to save into; its files move into `folder` once the body has ended well.

    All ranks may save into it; only the main one makes, moves and clears. StageError (and the
    old files whole) when they cannot be written.
    """
    staging = folder / _STAGING_NAME
    if is_main:
        shutil.rmtree(staging, ignore_errors=True)
        make_folder(staging)
    try:
        with disk_errors(folder):
            yield staging
            if is_main:
                _move_files(staging, folder)
    finally:
        if is_main:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what torch, safetensors and the system say of a full disk into one StageError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise _unwritable(folder, error) from None
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: Exception) -> StageError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
    return StageError(
        f"{folder}: cannot be written ({reason}); free space or choose another --output_dir, "
        "then run the same command again"
    )


def _move_files(staging: Path, folder: Path) -> None:
    new = {path.name for path in staging.iterdir()}
    for path in staging.iterdir():
        if (folder / path.name).is_dir():  # an ensemble's member has a folder
            shutil.rmtree(folder / path.name)
        os.replace(path, folder / path.name)
    # Shards of an earlier, larger model would be loaded beside these. That the folder is a run's
    # own, refuse_foreign_weights has seen to.
    for pattern in WEIGHT_PATTERNS:
        for stale in folder.glob(pattern):
            if stale.name not in new:
                stale.unlink()
