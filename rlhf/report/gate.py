"""What the gate said of the reward model: its verdict, its checks, and an override's reason."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rlhf.report import charts
from rlhf.report.drawing import Figure, figure, row_of
from rlhf.report.reading import Run
from rlhf.report.reward_charts import best_of_chart
from rlhf.report.wording import Finding, number, quoted

Status = Literal["passed", "failed", "overridden"]

VERDICTS: Mapping[Status, str] = {
    "passed": "passed",
    "failed": "FAILED",
    "overridden": "passed by override",
}
_SHOWN_ELSEWHERE = ("rule", "asked", "bins", "words")
"""Details that the table or a chart shows already."""

_WORDS = {True: "passed", False: "failed", None: "not measured"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The gate's answer for the page; `reason` is what was written to override it, word by word."""

    status: Status
    sentence: str
    reason: str | None
    simulated: bool
    checks: list[dict[str, Any]]
    reward: Mapping[str, Any]

    @property
    def text(self) -> str:
        return VERDICTS[self.status]

    @property
    def is_alarming(self) -> bool:
        """Whether a reader must not miss it."""
        return self.status != "passed"


def verdict_of(run: Run) -> Verdict | None:
    """The gate's verdict; None when the run has none."""
    if run.gate is None:
        return None
    checks = [_check(check) for check in run.gate["checks"]]
    status, reason = _status(run.gate, checks), _reason(run.gate)
    reward = run.gate.get("reward")
    return Verdict(
        status=status,
        sentence=_sentence(status, run.gate, checks),
        reason=reason,
        simulated=bool(run.gate.get("simulated")),
        checks=checks,
        reward=reward if isinstance(reward, dict) else {},
    )


def gate_findings(run: Run) -> list[Finding]:
    """The verdict as a sentence, with the reason of an override quoted."""
    verdict = verdict_of(run)
    if verdict is None:
        return []
    text = verdict.sentence
    if verdict.status == "overridden":
        text += f" The reason given: {quoted(verdict.reason or '')}"
    return [Finding(text=text, simulated=verdict.simulated)]


def gate_warnings(run: Run) -> list[str]:
    """What failed and what was not measured, a line each."""
    verdict = verdict_of(run)
    if verdict is None:
        return []
    failed = [check for check in verdict.checks if check["verdict"] == "failed"]
    found = [f"The gate's check {one['title']!r} failed: {one['words']}." for one in failed]
    unmeasured = [check["title"].lower() for check in verdict.checks if not _is_measured(check)]
    if unmeasured:
        told = f"The gate did not measure {len(unmeasured)} of its {len(verdict.checks)} checks"
        found.append(f"{told}: {', '.join(unmeasured)}; its table says why.")
    return found


def _is_measured(check: Mapping[str, Any]) -> bool:
    return bool(check["verdict"] != "not measured")


def check_of(run: Run, name: str) -> dict[str, Any]:
    """A check's details by its name; empty when the gate did not make it."""
    for check in (run.gate or {}).get("checks", []):
        if check.get("name") == name and isinstance(check.get("details"), dict):
            return dict(check["details"])
    return {}


def _check(check: Mapping[str, Any]) -> dict[str, Any]:
    """A check's row in the table; a value that is no yes or no counts as not measured."""
    passed = check.get("passed")
    details = check.get("details")
    name = str(check.get("name", "unnamed"))
    return {
        "name": name,
        "title": str(check.get("title") or name),
        "verdict": _WORDS[passed if isinstance(passed, bool) else None],
        "value": _text(check.get("value")),
        "bounds": _bounds(check),
        "n": check.get("n") or None,
        "threshold": _threshold(check),
        "words": str(check.get("words") or "").rstrip("."),
        "details": [
            line
            for key, value in (details if isinstance(details, dict) else {}).items()
            if key not in _SHOWN_ELSEWHERE
            for line in _detail_lines(str(key).replace("_", " "), value)
        ],
    }


def _detail_lines(name: str, value: object) -> Iterator[str]:
    """A check's details in lines: estimates with their interval and n, the rest as it is."""
    if isinstance(value, list):
        rows = [row for row in value if isinstance(row, dict)]
        if not rows and value:
            yield f"{name}: {', '.join(_text(item) for item in value)}"
        for row in rows:
            told = row.get("group", f"n={row['n']}" if "n" in row else "")
            yield from _detail_lines(f"{name}, {told}" if told else name, row)
    elif isinstance(value, dict) and isinstance(value.get("value"), (int, float)):
        yield f"{name}: {_text(value['value'])}{_around(value)}"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _detail_lines(f"{name}, {key}".replace("_", " "), item)
    elif value is not None:
        yield f"{name}: {_text(value)}"


def _around(estimate: Mapping[str, Any]) -> str:
    """An estimate's interval and count in brackets, as far as they are known."""
    count = estimate.get("num_prompts", estimate.get("n"))
    known = [_bounds(estimate), f"n={number(count)}" if count else None]
    listed = ", ".join(text for text in known if text)
    return f" ({listed})" if listed else ""


def _threshold(check: Mapping[str, Any]) -> str:
    """What was asked, in the check's own words where it has them."""
    details = check.get("details")
    asked = details.get("asked") if isinstance(details, dict) else None
    if asked:
        return str(asked)
    return "nothing asked" if check.get("threshold") is None else _text(check["threshold"])


def _bounds(check: Mapping[str, Any]) -> str | None:
    """The 95% interval; None where there is none, or where the value was computed, not sampled."""
    low, high = check.get("low"), check.get("high")
    if low is None or high is None or low == high == check.get("value"):
        return None
    return f"{_text(low)} to {_text(high)}"


def _text(value: object) -> str:
    """A number to three decimals, a tiny one to four digits; empty for none."""
    if isinstance(value, float) and 0.001 <= abs(value) < 1000:
        return number(round(value, 3))
    return "" if value is None else number(value)


def _status(gate: Mapping[str, Any], checks: list[dict[str, Any]]) -> Status:
    if _reason(gate) is not None:
        return "overridden"
    has_failed = any(check["verdict"] == "failed" for check in checks)
    return "passed" if gate.get("passed") is True and not has_failed else "failed"


def _reason(gate: Mapping[str, Any]) -> str | None:
    override = gate.get("override")
    if not isinstance(override, dict):
        return None
    return str(override.get("reason") or "").strip() or "none was written"


def _sentence(status: Status, gate: Mapping[str, Any], checks: list[dict[str, Any]]) -> str:
    counts = {word: sum(check["verdict"] == word for check in checks) for word in _WORDS.values()}
    told = f"{counts['passed']} of {len(checks)} checks passed"
    if counts["not measured"]:
        told += f", {counts['not measured']} could not be measured"
    if status == "passed":
        return f"The gate passed the reward model: {told}."
    refusing = gate.get("refused_by")
    refusing = refusing if isinstance(refusing, list) else []
    stopped = [
        check["title"].lower()
        for check in checks
        if check["verdict"] == "failed" or check["name"] in refusing
    ]
    told += f". Refused by: {', '.join(stopped)}" if stopped else ""
    if status == "failed":
        return f"The gate FAILED the reward model, so nothing may be tuned against it: {told}."
    return f"The gate FAILED the reward model and a person overrode it: {told}."


def gate_figures(run: Run) -> list[Figure]:
    """The charts out of the checks' details: other domains, and the best of n."""
    simulated = run.gate is not None and bool(run.gate.get("simulated"))
    probe = check_of(run, "best_of_n_value")
    drawn = [subsets_figure(check_of(run, "out_of_domain"))]
    curves = probe.get("curves")
    for name, (title, note) in _CURVES.items():
        points = curves.get(name) if isinstance(curves, dict) else None
        marked = bool(probe.get("simulated")) if name == "value" else simulated
        source = probe.get("value_source")
        by = f" By {source}." if name == "value" and source else ""
        drawn.append(best_of_figure(title, note + by, points, name == "repetition", marked))
    return [each for each in drawn if each]


def subsets_figure(details: Mapping[str, Any]) -> Figure | None:
    """Accuracy on each set of pairs from elsewhere."""
    rows = [
        row_of(str(one.get("group")), one, "subset") for one in _measured(details.get("groups"))
    ]
    if not rows:
        return None
    drawn = figure("Out of domain", charts.interval_chart(rows, reference=0.5), rows, False)
    return {**drawn, "note": "Accuracy on pairs from elsewhere, with 95% intervals."}


def best_of_figure(
    title: str, note: str, points: object, share: bool, simulated: bool
) -> Figure | None:
    """One measure of the best of n over n; None when it was not measured."""
    rows = [
        {**row_of(f"n={point['n']}", point, "best of n"), "at": point["n"]}
        for point in _measured(points)
        if point.get("n")
    ]
    if len(rows) < 2:
        return None
    words = [f"{row['label']}: {row['value']:.3g}{_between(row)}" for row in rows]
    prompts = _measured(points)[0].get("num_prompts")
    return {
        "title": f"Best of n: {title}",
        "spec": best_of_chart(rows, share=share),
        "caption": "; ".join(words) + ".",
        "note": f"{note} Mean over {prompts} prompts with 95% intervals." if prompts else note,
        "simulated": simulated,
    }


_CURVES: Mapping[str, tuple[str, str]] = {
    "score": ("the reward model's score", "What is optimised: it rises by itself."),
    "value": (
        "the true value",
        "What is meant: where it falls while the score rises, the score is being gamed.",
    ),
    "words": ("length in words", "Longer with every n means that length buys score."),
    "repetition": ("repetition", "The share of word trigrams that were said before."),
}


def _between(row: Mapping[str, Any]) -> str:
    if row["low"] is None or row["high"] is None:
        return ""
    return f" ({row['low']:.3g} to {row['high']:.3g})"


def _measured(rows: object) -> list[dict[str, Any]]:
    """Those of a check's detail rows that have a value."""
    listed = rows if isinstance(rows, list) else []
    return [row for row in listed if isinstance(row, dict) and row.get("value") is not None]
