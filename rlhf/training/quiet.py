"""Keeps the libraries from noise that no reader can act on."""

import logging
import os
import warnings

_HARMLESS = (
    # transformers renamed keys that TRL, and so every config of ours, still calls by the old name.
    (FutureWarning, r"`(is_)?gradient_checkpointing(_kwargs)?` is deprecated"),
    # Rows are cut before TRL sees them (data/columns.py), and it is its own cutting that will go.
    (FutureWarning, r"The `'keep_end'` truncation mode is deprecated"),
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
