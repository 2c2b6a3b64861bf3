"""Putting an export on the hub: what can be known wrong is said before anything is made."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError, StageError
from rlhf.export.names import hub_id_of

_REPO_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A repository on the hub; `base` is the hub id under an adapter, None of a whole model."""

    repo_id: str
    private: bool
    base: str | None


def require_target(repo_id: str | None, private: bool, base: str | None) -> Target | None:
    """Where to push to, None when that is not asked.

    ConfigError for a name that is none, without a token, and for an adapter whose `base` (a
    folder or a hub id) nobody else has.
    """
    if repo_id is None:
        return None
    if not _REPO_ID.fullmatch(repo_id):
        raise ConfigError(f"--push_to_hub {repo_id}: must be OWNER/NAME")
    named = None if base is None else hub_id_of(base)
    if base is not None and named is None:
        raise ConfigError(
            f"--push_to_hub: the adapter's base {base} is on this machine alone, so that nobody "
            "could load it; leave out --adapter_only"
        )
    from huggingface_hub import get_token

    if not get_token():
        raise ConfigError(
            "--push_to_hub: no token of the hub; run `hf auth login`, or set HF_TOKEN to one that "
            "may write"
        )
    return Target(repo_id=repo_id, private=private, base=named)


def push(folder: Path, target: Target) -> str:
    """Upload `folder` as one commit, and give the repository's address.

    StageError when the hub refuses or cannot be reached (the folder is whole then), and when a
    repository that is to be private is there and is public.
    """
    from huggingface_hub import HfApi

    api: Any = HfApi()
    with _refusals_named(folder, target.repo_id):
        private = True if target.private else None
        address = api.create_repo(target.repo_id, private=private, exist_ok=True)
        if target.private and not api.repo_info(target.repo_id).private:
            raise StageError(
                f"{target.repo_id}: is there already and is public; nothing was uploaded: make it "
                f"private on the hub, or choose another name ({folder} is whole)"
            )
        api.upload_folder(
            repo_id=target.repo_id, folder_path=folder, commit_message="Export by rlhf"
        )
    return str(address)


@contextmanager
def _refusals_named(folder: Path, repo_id: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    # What its HTTP library raises where the network fails: httpx or httpx2, as it is new.
    network_error = HfHubHTTPError.__mro__[1]
    try:
        yield
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, network_error) as error:
        reason = " ".join(str(error).split())[:160]
        raise StageError(
            f"{repo_id}: the hub does not take it ({reason}); {folder} is whole: mend that (token, "
            "name, network, HF_HUB_OFFLINE), and run the same command again"
        ) from None
