"""A sweep whose trials are scripted, and the small data sets of the training stages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial

from rlhf.sweep import search, trial
from tests.report.conftest import visit as visit
from tests.sweep.forked import make_plan, start_scripted
from tests.training.conftest import demos as demos
from tests.training.conftest import pairs as pairs


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[FrozenTrial]]:
    """`sweep(out=NAME, keep_checkpoints=..., **plan)` runs the scripted stage; all trials."""
    monkeypatch.setattr(trial, "start", start_scripted)
    monkeypatch.setattr(trial, "_POLL_S", 0.005)

    def run(out: str = "sweep", keep_checkpoints: bool = False, **plan: Any) -> list[FrozenTrial]:
        return search.run_sweep(
            make_plan(**plan), tmp_path / out, keep_checkpoints=keep_checkpoints
        )

    return run
