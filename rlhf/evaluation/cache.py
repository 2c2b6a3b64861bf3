"""What an evaluation has already paid for, kept by the hash of all that it depends on."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhf.manifest import make_folder, write_json
from rlhf.records import content_hash


class JsonCache:
    """JSON values in a folder, one file for each key; an interrupted evaluation goes on here."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)

    def fetch(self, kind: str, key: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """The value stored under `key`, or what `make()` gives, which is then stored.

        Anything that can change the value belongs into `key`. A damaged file is made again.
        """
        path = self.folder / f"{kind}-{content_hash(dict(key))[:32]}.json"
        try:
            return json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            value = make()
            write_json(path, value)
            return value
