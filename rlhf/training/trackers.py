"""Experiment trackers: found before a run begins, and never asking for a login in its middle."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rlhf.config import nearest_hint
from rlhf.errors import ConfigError

_PACKAGES = {
    "azure_ml": ("azureml",),
    "flyte": ("flytekit",),
    "kubeflow": (),
    "tensorboard": ("tensorboard", "tensorboardX"),
}
"""One of these is what a tracker needs, where that is not a package of its own name."""


def require_trackers(report_to: Sequence[str]) -> None:
    """ConfigError, with the command that installs it, when a tracker is unknown or missing."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            hint = nearest_hint(name, INTEGRATION_TO_CALLBACK)
            raise ConfigError(f"--report_to {name}: no tracker of that name{hint}; or use none")
        packages = _PACKAGES.get(name, (name,))
        if packages and not any(find_spec(each) for each in packages):
            raise ConfigError(
                f"--report_to {name}: the package is not installed; pip install {packages[0]}, or "
                "use --report_to none"
            )


def go_offline_where_needed(report_to: list[str], folder: Path) -> None:
    """wandb asks for a login in the middle of a run; without a key it writes to disk instead."""
    if "wandb" not in report_to:
        return
    os.environ.setdefault("WANDB_DIR", str(folder))
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    logged_in = netrc.exists() and "api.wandb.ai" in netrc.read_text(errors="ignore")
    if not logged_in and "WANDB_API_KEY" not in os.environ:
        os.environ.setdefault("WANDB_MODE", "offline")
