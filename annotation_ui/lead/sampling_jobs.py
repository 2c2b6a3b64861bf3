"""Campaigns whose completions are being sampled: `rlhf sample` runs while the page may be closed.

Nothing is written until every completion is there; then the campaign is made whole. The jobs are
this server's: when it is stopped, they end, and nothing of them is left.
"""

import threading
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rlhf.errors import DataError, RlhfError
from rlhf.feedback.campaign_file import CampaignPlan, create_campaign
from rlhf.feedback.sampling import sampled_rows
from rlhf.feedback.store import Store

NUM_LINES = 40
MAX_JOBS = 20


class _Stopped(Exception):
    """A lead has stopped the job."""


@dataclass(kw_only=True)
class Job:
    """One campaign in the making; `lines` are the last that the processes printed."""

    id: str
    plan: CampaignPlan
    started_by: str
    started_at: datetime
    state: Literal["running", "done", "failed", "stopped"] = "running"
    error: str | None = None
    num_items: int | None = None
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=NUM_LINES))
    stopping: threading.Event = field(default_factory=threading.Event)

    def say(self, line: str) -> None:
        """Keeps a line; one progress bar stays one line. Raises when the job shall end."""
        if self.stopping.is_set():
            raise _Stopped
        if self.lines and _is_progress(line) and _is_progress(self.lines[-1]):
            self.lines.pop()
        self.lines.append(line[:500])

    def as_json(self) -> dict[str, Any]:
        """What the page shows."""
        return {
            "id": self.id,
            "campaign": self.plan.name,
            "models": list(self.plan.values["sample"]["models"]),
            "started_by": self.started_by,
            "started_at": self.started_at.isoformat(),
            "state": self.state,
            "stopping": self.state == "running" and self.stopping.is_set(),
            "error": self.error,
            "num_items": self.num_items,
            "lines": list(self.lines),
        }


def _is_progress(line: str) -> bool:
    return "%|" in line


class SamplingJobs:
    """The jobs of this server, for any number of threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def start(self, plan: CampaignPlan, lead: str) -> Job:
        """Begins, or finds the running job of the same plan; DataError for another of its name."""
        with self._lock:
            running = [job for job in self._jobs.values() if job.state == "running"]
            for job in running:
                if job.plan.settings == plan.settings and job.plan.name == plan.name:
                    return job
                if job.plan.name == plan.name:
                    raise DataError(
                        f"campaign {plan.name!r} is being made of other settings now; wait for "
                        "that, or stop it"
                    )
            if running:
                raise DataError(
                    f"campaign {running[0].plan.name!r} is being sampled now, and models need the "
                    "machine for themselves; begin when that is done, or stop it"
                )
            job = Job(id=uuid.uuid4().hex, plan=plan, started_by=lead, started_at=datetime.now(UTC))
            self._jobs[job.id] = job
            self._drop_oldest()
        threading.Thread(target=self._work, args=(job,), daemon=True).start()
        return job

    def every(self) -> list[Job]:
        """The newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def stop(self, job_id: str) -> None:
        """Ends a running job at its next word, or takes a finished one off the list."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None:
                raise DataError("this job is not on the list any more")
            if job.state == "running":
                job.stopping.set()
            else:
                del self._jobs[job_id]

    def _drop_oldest(self) -> None:
        ended = [job.id for job in self._jobs.values() if job.state != "running"]
        for job_id in ended[: max(0, len(self._jobs) - MAX_JOBS)]:
            del self._jobs[job_id]

    def _work(self, job: Job) -> None:
        try:
            rows = sampled_rows(job.plan.values["sample"], Path(), job.say)
            made = create_campaign(self._store, replace(job.plan, rows=rows))
            job.num_items, job.state = made.num_items, "done"
        except _Stopped:
            job.state = "stopped"
        except RlhfError as error:
            job.error, job.state = " ".join(str(error).split()), "failed"
        except Exception as error:  # a thread has nobody above it to tell
            job.error, job.state = f"{type(error).__name__}: {error}", "failed"
