"""Writing to a store that may have to be made first: a write that fails leaves none behind."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rlhf.feedback.store import Store

Result = TypeVar("Result")


def fill_store(location: str, fill: "Callable[[Store], Result]") -> Result:
    """What `fill` gives for the store at `location`, which is made where there is none.

    A new store is filled beside its place and linked there whole: where `fill` fails there is
    none, and a store that another process has put there meanwhile is filled instead.
    """
    from rlhf.feedback.store import Store
    from rlhf.feedback.store.database import parse_location
    from rlhf.manifest import make_folder

    url, path = parse_location(location), Path(location)
    if "://" not in location and url.database and not path.exists():
        with tempfile.TemporaryDirectory(prefix=".rlhf-", dir=make_folder(path.parent)) as folder:
            new = Path(folder) / "feedback.db"
            with Store.open(new, create=True) as store:
                result = fill(store)
            if _put(new, path):
                return result
    with Store.open(location, create=True) as store:
        return fill(store)


def _put(new: Path, path: Path) -> bool:
    """Link a file to a place where there is none; False when there is one, or links cannot be."""
    try:
        path.hardlink_to(new)
    except OSError:
        return False
    return True
