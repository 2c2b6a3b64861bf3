"""What models are called outside this machine: ids on the hub, licences, names without a path."""

import json
import re
from pathlib import Path
from typing import Any

from rlhf.models.registry import NAMED_MODELS, ORIGIN_NAME, HubSource, is_pulled

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def origin_of(folder: Path | None) -> dict[str, Any]:
    """What the pull that made a folder says of it; empty for other folders."""
    if folder is None or not is_pulled(folder):
        return {}
    values: dict[str, Any] = json.loads((folder / ORIGIN_NAME).read_text("utf-8"))
    return values


def hub_id_of(name: str | Path) -> str | None:
    """The hub id of a model's name or folder; None for what is only on this machine."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        entry = NAMED_MODELS.get(str(origin_of(folder).get("name")))
    else:
        entry = NAMED_MODELS.get(str(name))
    if entry is not None:
        return entry.source.repo_id if isinstance(entry.source, HubSource) else None
    looks_like_one = _HUB_ID.fullmatch(str(name)) and not folder.exists()
    return str(name) if looks_like_one else None


def shown_path(path: object) -> str:
    """A path or a name as a card shows it: without the home folder, which names its owner."""
    text, home = str(path), str(Path.home())
    return "~" + text[len(home) :] if home != "/" and text.startswith(home + "/") else text
