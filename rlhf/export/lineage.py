"""The stages behind a model: each one's manifest, from the model down to what nobody here made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError, DataError
from rlhf.evaluation.gate.binding import reward_sha256
from rlhf.manifest import MANIFEST_NAME, Manifest
from rlhf.models.adapters import base_of, is_adapter
from rlhf.models.registry import (
    NAMED_MODELS,
    TRAINER_STATE,
    is_pulled,
    model_folder,
    weight_hashes,
)

_RUN_NAME = "run.json"  # a training stage writes it first, and the manifest last


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A model in the lineage, as the stage that read it recorded it.

    `role` is "model" (the one that is exported), "base" or "reward model". `name` is what the
    settings called it, `folder` where it lies now (None: on the hub, or gone), `manifest` how it
    was made (None: not by a stage, or its manifest is gone). `recorded` is its entry among the
    inputs of the stage that read it, and `changed` whether its weights are others since.
    """

    role: str
    name: str
    folder: Path | None
    manifest: Manifest | None
    recorded: Mapping[str, Any]
    changed: bool = False


def finished_stage(folder: Path) -> Manifest:
    """The manifest of a stage's folder; ConfigError or DataError (one line) when it has none."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the --output_dir of a training stage")
    if (folder / MANIFEST_NAME).is_file():
        return Manifest.read(folder)
    if (folder / _RUN_NAME).is_file():
        raise DataError(
            f"{folder}: its training did not end; run the same command again, then export"
        )
    raise DataError(
        f"{folder}: no {MANIFEST_NAME}, so no finished stage; give a stage's --output_dir"
    )


def lineage(folder: Path, manifest: Manifest) -> list[Link]:
    """The model in `folder`, then the bases and reward models behind it, nearest first."""
    first = Link(role="model", name=str(folder), folder=folder, manifest=manifest, recorded={})
    found, waiting = [first], [first]
    seen = {folder.resolve()}
    while waiting:
        for link in _inputs_of(waiting.pop(0)):
            place = None if link.folder is None else link.folder.resolve()
            if place in seen:
                continue
            if place is not None:
                seen.add(place)
            found.append(link)
            waiting.append(link)
    return found


def refuse_edited(folder: Path, manifest: Manifest) -> None:
    """DataError when weights in `folder` are others than those that the stage wrote: the card
    would tell another model's numbers. A manifest that records none is taken at its word.
    """
    found = weight_hashes(folder)
    for name, digest in manifest.outputs.items():
        if name in found and found[name] != digest:
            raise DataError(
                f"{folder / name}: others than the weights that the stage wrote (its "
                f"{MANIFEST_NAME} says sha256 {digest[:12]}); put those back, or run the stage "
                "again with --restart"
            )


def refuse_other_base(folder: Path, manifest: Manifest) -> None:
    """DataError when the base under an adapter has other weights than it was trained on.

    Merged into them it would be another model, and nothing would say so.
    """
    if not is_adapter(folder):
        return
    base = Path(base_of(folder))
    recorded = manifest.inputs.get("model", {})
    if not base.is_dir():
        return
    if _differs(recorded, base):
        raise DataError(
            f"{folder}: an adapter trained on {recorded.get('path')} (sha256 "
            f"{str(recorded.get('sha256'))[:12]}), and {base} has other weights now; put the first "
            "back, or train on the second"
        )
    if (base / MANIFEST_NAME).is_file():
        refuse_other_base(base, Manifest.read(base))


def base_revision(links: list[Link]) -> str | None:
    """The revision of the hub's model at the bottom of the lineage, None without one."""
    bases = [link for link in links if link.role == "base"]
    revision = bases[-1].recorded.get("revision") if bases else None
    return None if revision is None else str(revision)


def _inputs_of(link: Link) -> Iterator[Link]:
    """The models that the stage of `link` read."""
    if link.manifest is None:
        return
    for key, recorded in link.manifest.inputs.items():
        if not isinstance(recorded, dict) or "path" not in recorded:
            continue
        name = str(recorded["path"])
        if key == "model":
            folder = _place_of(name, link.folder)
            changed = folder is not None and _differs(recorded, folder)
            yield _link("base", name, folder, recorded, changed=changed)
        elif key.startswith("reward "):
            folder = _place_of(name, link.folder)
            changed = folder is not None and reward_sha256(folder) != recorded.get("sha256")
            yield _link("reward model", name, folder, recorded, changed=changed)


def _link(
    role: str, name: str, folder: Path | None, recorded: Mapping[str, Any], *, changed: bool
) -> Link:
    whole = folder is not None and (folder / MANIFEST_NAME).is_file()
    manifest = Manifest.read(folder) if whole and folder is not None else None
    return Link(
        role=role, name=name, folder=folder, manifest=manifest, recorded=recorded, changed=changed
    )


def _place_of(name: str, reader: Path | None) -> Path | None:
    """Where a model that a stage read lies now: a run's folder may have been moved as a whole."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if reader is not None and (reader.absolute().parent / path.name).is_dir():
        return reader.absolute().parent / path.name
    if name in NAMED_MODELS and is_pulled(model_folder(name)):
        return model_folder(name)
    return None


def _differs(recorded: Mapping[str, Any], folder: Path) -> bool:
    """Whether the weights in `folder` are others than those that were recorded file by file."""
    files = recorded.get("files")
    if not isinstance(files, dict):
        return False
    return _weights_alone(files) != _weights_alone(weight_hashes(folder))


def _weights_alone(files: Mapping[str, Any]) -> dict[str, Any]:
    return {name: digest for name, digest in files.items() if name != TRAINER_STATE}
