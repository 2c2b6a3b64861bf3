"""The export stage: checks, one folder that appears whole, and its manifest."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError
from rlhf.export.card import CARD_NAME, write_card
from rlhf.export.hub import push, require_target
from rlhf.export.lineage import (
    Link,
    base_revision,
    finished_stage,
    lineage,
    refuse_edited,
    refuse_other_base,
)
from rlhf.export.weights import DTYPES, adapter_base, write_adapter, write_policy, write_reward
from rlhf.manifest import MANIFEST_NAME, Manifest, file_sha256, make_folder, recorded_stage
from rlhf.models.registry import ORIGIN_NAME, is_pulled, model_identity
from rlhf.training.saving import disk_errors

STAGE_NAME = "export"
POLICIES = ("sft", "dpo", "kto", "ppo", "online_dpo", "rloo", "grpo")
"""Stages that leave a policy; `reward` leaves a sequence classifier, the others no model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to export, where to and how; `dtype` None is float32, and as stored of an adapter."""

    stage_dir: Path
    output_dir: Path
    dtype: str | None = None
    adapter_only: bool = False
    push_to_hub: str | None = None
    private: bool = False


def export_stage(options: ExportOptions) -> Manifest:
    """Write a finished stage's model with its card to `output_dir`, and push it if that is asked.

    The folder appears in one step; an earlier export there is replaced. ConfigError for what
    cannot be exported so or a folder that holds something else, DataError for a stage that is
    unfinished, was edited since, or whose base has changed, StageError where the disk or the hub
    refuses.
    """
    stage_dir, output_dir = options.stage_dir, options.output_dir
    manifest = finished_stage(stage_dir)
    refuse_impossible(options, manifest)
    refuse_folder(stage_dir, output_dir)
    refuse_edited(stage_dir, manifest)
    refuse_other_base(stage_dir, manifest)
    links = lineage(stage_dir, manifest)
    base = adapter_base(stage_dir) if options.adapter_only else None
    target = require_target(options.push_to_hub, options.private, base)
    with appearing_whole(output_dir) as folder:
        made = _write(options, manifest, links, base if target is None else target.base, folder)
    if target is not None:
        push(output_dir, target)
    return made


def refuse_impossible(options: ExportOptions, manifest: Manifest) -> None:
    """ConfigError for a stage without a model, or options that exclude each other."""
    if manifest.stage not in (*POLICIES, "reward"):
        raise ConfigError(
            f"{options.stage_dir}: stage {manifest.stage!r} leaves no model to export; give the "
            f"folder of one of {', '.join((*POLICIES, 'reward'))}"
        )
    if options.dtype is not None and options.dtype not in DTYPES:
        raise ConfigError(f"--dtype {options.dtype}: must be one of {', '.join(DTYPES)}")
    if options.dtype is not None and options.adapter_only:
        raise ConfigError("--dtype: an adapter is copied as it was saved; leave out one of the two")
    if options.private and options.push_to_hub is None:
        raise ConfigError("--private: is of a repository on the hub; add --push_to_hub REPO_ID")


def refuse_folder(stage_dir: Path, output_dir: Path) -> None:
    """ConfigError for a folder that lies in the stage's, or holds anything but an export."""
    stage, output = stage_dir.resolve(), output_dir.resolve()
    if stage == output or stage in output.parents or output in stage.parents:
        raise ConfigError(
            f"--output_dir {output_dir}: it and the stage {stage_dir} lie in one another; choose "
            "another --output_dir"
        )
    if output_dir.exists() and not output_dir.is_dir():
        raise ConfigError(f"--output_dir {output_dir}: a file; give a folder")
    strange = _strange_file(output_dir)
    if strange is not None:
        raise ConfigError(
            f"--output_dir {output_dir}: holds {strange}, which no export put there; choose "
            "another --output_dir"
        )


@contextmanager
def appearing_whole(output_dir: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `output_dir` once the body has ended well.

    Whatever a body or a kill leaves stands beside it under a hidden name, and the next export
    there removes it.
    """
    make_folder(output_dir.absolute().parent)
    _remove_leftovers(output_dir)
    temporary = _beside(output_dir, str(os.getpid()))
    old = _beside(output_dir, f"{os.getpid()}-old")
    try:
        with disk_errors(output_dir):
            make_folder(temporary)
            yield temporary
            if output_dir.exists():
                os.replace(output_dir, old)
            os.replace(temporary, output_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _write(
    options: ExportOptions, stage: Manifest, links: list[Link], base: str | None, folder: Path
) -> Manifest:
    """Fill `folder`: weights and tokenizer, the licence, the card, and the manifest last."""
    config = asdict(options) | {"seed": stage.seed}
    with recorded_stage(STAGE_NAME, folder, config) as manifest:
        manifest.inputs = {"model": model_identity(options.stage_dir) | {"stage": stage.stage}}
        manifest.inputs["model"]["manifest_sha256"] = file_sha256(options.stage_dir / MANIFEST_NAME)
        manifest.simulated = any(link.manifest.simulated for link in links if link.manifest)
        manifest.metrics = _write_weights(options, stage, links, base, folder)
        manifest.provenance = {"lineage": [_summary(link) for link in links]}
        _copy_licence(links, folder)
        write_card(folder, links, manifest)
        written = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest.outputs = {str(path.relative_to(folder)): file_sha256(path) for path in written}
    assert CARD_NAME in manifest.outputs
    return manifest


def _write_weights(
    options: ExportOptions, stage: Manifest, links: list[Link], base: str | None, folder: Path
) -> dict[str, Any]:
    dtype = options.dtype or "float32"
    if base is not None:
        return write_adapter(options.stage_dir, folder, base=base) | {"weights": "adapter"}
    if stage.stage == "reward":
        found = write_reward(options.stage_dir, folder, dtype=dtype)
    else:
        rendering = str(stage.config.get("rendering") or "chat")
        revision = base_revision(links)
        found = write_policy(
            options.stage_dir, folder, dtype=dtype, revision=revision, rendering=rendering
        )
    return found | {"weights": "whole", "dtype": dtype}


def _summary(link: Link) -> dict[str, Any]:
    """A link of the lineage as the export's manifest keeps it."""
    found = {"role": link.role, "name": link.name, "changed": link.changed}
    if link.recorded.get("sha256"):
        found["sha256"] = link.recorded["sha256"]
    if link.manifest is not None:
        made = link.manifest
        found |= {"stage": made.stage, "seed": made.seed, "code_version": made.code_version}
    return found


def _copy_licence(links: list[Link], folder: Path) -> None:
    """Carry the base's licence along, as most licences ask of whoever passes weights on."""
    for link in links:
        if link.role != "base" or link.folder is None:
            continue
        for path in sorted(link.folder.glob("LICENSE*")):
            if path.is_file() and is_pulled(link.folder) and path.name != ORIGIN_NAME:
                shutil.copyfile(path, folder / path.name)


def _strange_file(folder: Path) -> str | None:
    """A file in `folder` that no earlier export wrote; None when there is none."""
    if not folder.is_dir():
        return None
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    known: set[str] = set()
    if (folder / MANIFEST_NAME).is_file():
        manifest = Manifest.read(folder)
        if manifest.stage == STAGE_NAME:
            known = {MANIFEST_NAME, *manifest.outputs}
    return min(found - known, default=None)


def _beside(output_dir: Path, mark: str) -> Path:
    absolute = output_dir.absolute()
    return absolute.with_name(f".{absolute.name}.exporting-{mark}")


def _remove_leftovers(output_dir: Path) -> None:
    """Remove what killed exports left beside `output_dir`, and nothing of one that is at work."""
    prefix = _beside(output_dir, "").name
    for path in _beside(output_dir, "").parent.glob(f"{prefix}*"):
        process = path.name.removeprefix(prefix).partition("-")[0]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return process != os.getpid()
