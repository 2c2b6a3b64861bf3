"""The keys of a campaign file: which there are, what each holds, and the protocol among them."""

import json
from collections.abc import Mapping
from typing import Any

from rlhf.errors import ConfigError, nearest_hint
from rlhf.feedback.pairing import PAIRINGS
from rlhf.feedback.protocols import PROTOCOL_KEYS, Protocol, protocol_of
from rlhf.feedback.rules import TASKS
from rlhf.feedback.store import MAX_LEASE_S
from rlhf.feedback.templates import template

OWN_KEYS = (
    *("name", "template", "task", "guideline", "guideline_file", "overlap", "lease_s", "seed"),
    *("completions", "sample", "pairs", "num_comparisons_per_prompt", "gold", "qualification"),
)
KEYS = (*OWN_KEYS, *PROTOCOL_KEYS)


def over_template(given: dict[str, Any], where: str) -> dict[str, Any]:
    """The file's own keys over those of the template that it starts from."""
    for key in given:
        if key not in KEYS:
            raise ConfigError(f"{where}: unknown key {key!r}{nearest_hint(str(key), KEYS)}")
    base: dict[str, Any] = {}
    if given.get("template") is not None:
        try:
            base = template(str(given["template"]))
        except ConfigError as error:
            raise ConfigError(f"{where}: template: {error}") from None
        if "task" in given and given["task"] != base["task"]:
            raise ConfigError(
                f"{where}: task {given['task']!r}: the template {given['template']!r} is of task "
                f"{base['task']!r}; leave the key out"
            )
        if "guideline_file" in given:
            base.pop("guideline", None)
    own = {key: value for key, value in given.items() if value is not None}
    return {**base, **own}


_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "name": (str, "text"),
    "template": (str, "the name of a template"),
    "task": (str, "one of " + ", ".join(TASKS)),
    "guideline": (str, "text"),
    "guideline_file": (str, "the path of a Markdown file"),
    "overlap": (int, "a whole number of raters, 1 or more"),
    "lease_s": ((int, float), "a number of seconds"),
    "seed": (int, "a whole number"),
    "pairs": (str, "one of " + ", ".join(PAIRINGS)),
    "num_comparisons_per_prompt": (int, "a whole number, 1 or more"),
}


def check_values(values: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError for the first key that holds what it cannot."""
    for key, (kind, wanted) in _KINDS.items():
        value = values.get(key)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ConfigError(f"{where}: {key} {value!r}: {wanted} is needed")
    for key in ("name", "task"):
        if not values.get(key):
            raise ConfigError(f"{where}: no {key}; add `{key}:` ({_KINDS[key][1]})")
    if not values["name"].strip() or any(ord(char) < 32 for char in values["name"]):
        raise ConfigError(f"{where}: name {values['name']!r}: a name that can be read is needed")
    if values["task"] not in TASKS:
        hint = nearest_hint(values["task"], TASKS)
        raise ConfigError(f"{where}: task {values['task']!r} is none{hint}; {_KINDS['task'][1]}")
    bounds = {
        "overlap": (1, 2**31),
        "seed": (-(2**63), 2**63),
        "num_comparisons_per_prompt": (1, 2**31),
    }
    for key, (low, high) in bounds.items():
        if not low <= values.get(key, low) < high:
            raise ConfigError(f"{where}: {key} {values[key]}: {_KINDS[key][1]} is needed")
    if not 0 < values.get("lease_s", 1800) < MAX_LEASE_S:
        raise ConfigError(f"{where}: lease_s {values['lease_s']}: {_KINDS['lease_s'][1]} is needed")
    _check_pairs(values, where)


def _check_pairs(values: Mapping[str, Any], where: str) -> None:
    pairs = values.get("pairs")
    if pairs is not None and pairs not in PAIRINGS:
        raise ConfigError(
            f"{where}: pairs {pairs!r}{nearest_hint(pairs, PAIRINGS)}: {_KINDS['pairs'][1]}"
        )
    if pairs is not None and values["task"] != "pairwise":
        raise ConfigError(
            f"{where}: pairs: a {values['task']} campaign takes a prompt's completions whole; "
            "leave the key out"
        )
    if "num_comparisons_per_prompt" in values and pairs != "random":
        raise ConfigError(f"{where}: num_comparisons_per_prompt goes with pairs: random")


def read_protocol(values: Mapping[str, Any], where: str) -> tuple[Protocol, dict[str, Any]]:
    """What the campaign asks, and the settings that say so, as JSON gives them back."""
    settings = {key: values[key] for key in (*PROTOCOL_KEYS, "template") if key in values}
    try:
        settings = json.loads(json.dumps(settings, allow_nan=False))
        return protocol_of(values["task"], settings), settings
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{where}: a value of another kind than its key's ({error})") from None
