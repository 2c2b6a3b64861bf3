"""Keeps the libraries from asking for a login mid-run, and from noise no reader can act on."""

import logging
import os
import warnings
from pathlib import Path

_HARMLESS = (
    # transformers renamed keys that TRL, and so every config of ours, still calls by the old name.
    (FutureWarning, r"`(is_)?gradient_checkpointing(_kwargs)?` is deprecated"),
    # The base of an adapter on an adapter is a folder without config.json; nothing is assumed.
    (UserWarning, r"Could not find a config file in .* - will assume that the vocabulary was not"),
)


def silence_known_noise() -> None:
    """Filter, by their own words, the messages known to be harmless here."""
    # bitsandbytes looks for an optional CPU kernel on import, whether or not it is used.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    for category, message in _HARMLESS:
        warnings.filterwarnings("ignore", message=message, category=category)
    if os.environ.get("RANK", "0") != "0":
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # rank 0 shows it for all


def go_offline_where_needed(report_to: list[str], folder: Path) -> None:
    """wandb asks for a login in the middle of a run; without a key it writes to disk instead."""
    if "wandb" not in report_to:
        return
    os.environ.setdefault("WANDB_DIR", str(folder))
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    logged_in = netrc.exists() and "api.wandb.ai" in netrc.read_text(errors="ignore")
    if not logged_in and "WANDB_API_KEY" not in os.environ:
        os.environ.setdefault("WANDB_MODE", "offline")
