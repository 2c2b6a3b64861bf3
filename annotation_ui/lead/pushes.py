"""Exports on their way to the hub: each in a thread, so that a lead need not wait for it."""

import re
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from rlhf.errors import DataError, RlhfError
from rlhf.feedback.publishing import push_export
from rlhf.feedback.soft_labels import LabelMethod
from rlhf.feedback.store import Store

MAX_PUSHES = 20
_REPOSITORY = re.compile(
    r"(?!.*(\.\.|--))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII
)


@dataclass(kw_only=True)
class Push:
    """One export sent to one repository; `words` say how it went."""

    id: str
    campaign: str
    format_name: str
    repository: str
    started_by: str
    started_at: datetime
    state: Literal["running", "done", "failed"] = "running"
    words: str = ""


class Pushes:
    """The pushes of this server since it was started, for any number of threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pushes: list[Push] = []
        self._lock = threading.Lock()

    def start(
        self,
        lead: str,
        *,
        campaign: str,
        format_name: str,
        method: LabelMethod,
        repository: str,
        public: bool,
    ) -> Push:
        """Begins a push; DataError when one to the same repository is under way."""
        _check_repository(repository, format_name, public=public)
        push = Push(
            id=uuid.uuid4().hex,
            campaign=campaign,
            format_name=format_name,
            repository=repository,
            started_by=lead,
            started_at=datetime.now(UTC),
        )
        with self._lock:
            running = [one for one in self._pushes if one.state == "running"]
            if any(one.repository == repository for one in running):
                raise DataError(f"a push to {repository} is under way; wait for it")
            self._pushes = [push, *self._pushes][:MAX_PUSHES]
        threading.Thread(target=self._work, args=(push, method, public), daemon=True).start()
        return push

    def as_json(self) -> list[dict[str, Any]]:
        """The newest first, as the page shows them."""
        with self._lock:
            return [
                {
                    "id": one.id,
                    "campaign": one.campaign,
                    "format": one.format_name,
                    "repository": one.repository,
                    "started_by": one.started_by,
                    "started_at": one.started_at.isoformat(),
                    "state": one.state,
                    "words": one.words,
                }
                for one in self._pushes
            ]

    def _work(self, push: Push, method: LabelMethod, public: bool) -> None:
        try:
            manifest = push_export(
                self._store,
                push.campaign,
                push.format_name,
                push.repository,
                method=method,
                private=not public,
            )
            push.words = f"{manifest['num_rows']} rows are there"
            push.state = "done"
        except RlhfError as error:
            push.words, push.state = " ".join(str(error).split()), "failed"
        except Exception as error:  # a thread has nobody above it to tell
            push.words, push.state = f"{type(error).__name__}: {error}", "failed"


def _check_repository(repository: str, format_name: str, *, public: bool) -> None:
    if not _REPOSITORY.fullmatch(repository):
        raise DataError(f"{repository!r} is no repository; name it as in organisation/name")
    if public and format_name == "judgements":
        raise DataError(
            "judgements hold the raters' names; push a training format, or to a private repository"
        )
