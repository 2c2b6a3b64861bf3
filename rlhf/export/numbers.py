"""Metrics and settings of a manifest as a card lists them."""

import shlex
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from rlhf.config import decides_result
from rlhf.export.names import shown_path
from rlhf.manifest import Manifest
from rlhf.report.wording import number

_INTERVALS = ("_ci", "_ci_low", "_ci_high", "_se")
_ELSEWHERE = {"warnings", "policies", "checks", "judges"}
_PATHS = ("output_dir", "model_name_or_path", "dataset_name")


def metric_rows(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(name, value, 95% interval or "") of each number in a manifest's metrics.

    Intervals are found in all the shapes that stages write: `{value, low, high}`, `NAME_ci` with
    two numbers, `NAME_ci_low` beside `NAME_ci_high`, and `NAME_se` (a standard error).
    """
    for key, value in metrics.items():
        name = f"{prefix}{key}"
        if key in _ELSEWHERE or (key.endswith(_INTERVALS) and _stem(key) in metrics):
            continue
        if isinstance(value, Mapping):
            if "value" in value:
                yield name, number(value["value"]), _of_estimate(value)
            else:
                yield from metric_rows(value, f"{name}/")
        elif isinstance(value, (int, float, str)) or value is None:
            yield name, number(value), _beside(metrics, key)


def changed_settings(manifest: Manifest, defaults: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings that a stage was run with and that are not its defaults.

    Without the `defaults`, those that are neither None, False nor empty.
    """
    found = {}
    for key, value in manifest.config.items():
        if str(value).startswith("<") and str(value).endswith("_TOKEN>"):
            continue  # transformers hides what it takes for a secret
        if value != defaults.get(key) if defaults is not None else bool(value):
            found[key] = value
    return found


def command_of(manifest: Manifest, defaults: Mapping[str, Any] | None, *positional: str) -> str:
    """The command that makes a stage's output again, by its settings that are not the defaults."""
    changed = changed_settings(manifest, defaults)
    kept = {key: each for key, each in changed.items() if decides_result(key) or key in _PATHS}
    words = ["rlhf", manifest.stage, *positional]
    for key in sorted(kept, key=lambda key: (key not in _PATHS, key)):
        values = kept[key] if isinstance(kept[key], list) else [kept[key]]
        words += [f"--{key}", *(_word(each) for each in values)]
    return " ".join(shlex.quote(word) for word in words)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        import json

        return json.dumps(value)
    return shown_path(value)


def _stem(key: str) -> str:
    return next((key.removesuffix(end) for end in _INTERVALS if key.endswith(end)), key)


def _of_estimate(value: Mapping[str, Any]) -> str:
    beside = f", n={value['n']}" if value.get("n") is not None else ""
    return _interval(value.get("low"), value.get("high"), beside)


def _beside(metrics: Mapping[str, Any], key: str) -> str:
    """The interval that stands beside a metric, as text."""
    if isinstance(pair := metrics.get(f"{key}_ci"), (list, tuple)) and len(pair) == 2:
        return _interval(*pair)
    if f"{key}_ci_low" in metrics:
        return _interval(metrics[f"{key}_ci_low"], metrics.get(f"{key}_ci_high"))
    error = metrics.get(f"{key}_se")
    if isinstance(error, (int, float)) and isfinite(error):
        return f"standard error {number(float(error))}"
    return ""


def _interval(low: Any, high: Any, beside: str = "") -> str:
    numbers = [each for each in (low, high) if isinstance(each, (int, float)) and isfinite(each)]
    if len(numbers) < 2:
        return f"too few for an interval{beside}"
    return f"{number(float(low))} to {number(float(high))}{beside}"
