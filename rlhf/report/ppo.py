"""A PPO run on the page: its curves, what it warned of, where its time went, why it stopped."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlhf.report.charts import is_number
from rlhf.report.drawing import Figure
from rlhf.report.reading import Row, Run
from rlhf.report.rollouts import sample_rows
from rlhf.report.run_charts import curve_caption, points_of, run_chart
from rlhf.report.wording import Finding, number, percent, quoted

STAGE = "ppo"
PHASES = {
    "rollout": "sampling completions",
    "score": "log-probabilities, values and scores of them",
    "train": "learning from them",
}
_FEW_WARNINGS = 6


def ppo_section(run: Run) -> dict[str, Any] | None:
    """What the PPO section shows beside its charts; None when there is no such stage."""
    if STAGE not in run.stages:
        return None
    metrics, log = run.metrics(STAGE), run.logs.get(STAGE, [])
    numbers = sorted(run.rollouts)
    return {
        "simulated": run.is_simulated(STAGE),
        "outcome": [finding.text for finding in _outcome(run)],
        "warnings": warning_rows(metrics),
        "phases": phase_rows(log),
        "sources": source_rows(run),
        "samples": sample_rows(run.rollouts),
        "numbers": numbers,
        "summaries": [_summary(run.rollouts[one]) for one in numbers],
        "config": [
            (key, run.stages[STAGE].config[key])
            for key in ("kl_coef", "kl_controller", "kl_budget", "critic", "num_iterations")
            if run.stages[STAGE].config.get(key) is not None
        ],
    }


def ppo_findings(run: Run) -> list[Finding]:
    """How the score moved, which checkpoint is the best, and why the run stopped."""
    if STAGE not in run.stages:
        return []
    return [*_movement(run), *_outcome(run), *_overrides(run)]


def ppo_warnings(run: Run) -> list[str]:
    """The run's own warnings, those of the first causes, each with its place."""
    rows = warning_rows(run.metrics(STAGE))
    told = [_stopped(f"PPO, {row['place']}: {row['words']}") for row in rows[:_FEW_WARNINGS]]
    if len(rows) > _FEW_WARNINGS:
        told.append(f"PPO gave {len(rows) - _FEW_WARNINGS} more warnings: see its section.")
    alarming = [row for row in source_rows(run) if row["is_alarming"]]
    return told + [f"PPO rests on {row['name']}: {row['verdict']}." for row in alarming]


def _stopped(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


def _movement(run: Run) -> Iterator[Finding]:
    rows = [row for row in run.logs.get(STAGE, []) if is_number(row.get("score"))]
    if len(rows) < 2:
        return
    first, last = rows[0], rows[-1]
    episodes = last.get("episodes")
    counted = (
        f"{number(int(episodes))} episodes" if is_number(episodes) else f"{last['step']} steps"
    )
    text = (
        f"PPO's score on the prompts it learns from went from {_with_interval(first)} to "
        f"{_with_interval(last)} in {counted}: that is what it optimises, and no evidence of "
        "better completions."
    )
    high, low = first.get("score_ci_high"), last.get("score_ci_low")
    has_risen = last["score"] > first["score"]
    if has_risen and is_number(high) and is_number(low) and high > low:
        text += " The two intervals overlap, so the gain may be chance."
    yield Finding(text=text, simulated=run.is_simulated(STAGE))


def _with_interval(row: Row) -> str:
    low, high = row.get("score_ci_low"), row.get("score_ci_high")
    if not is_number(low) or not is_number(high):
        return f"{row['score']:.2f}"
    return f"{row['score']:.2f} (95% interval {low:.2f} to {high:.2f})"


def _outcome(run: Run) -> Iterator[Finding]:
    metrics, simulated = run.metrics(STAGE), run.is_simulated(STAGE)
    budget = run.stages[STAGE].config.get("kl_budget")
    within = f" within the budget of {budget:g}" if is_number(budget) else ""
    step, score, kl = (metrics.get(f"best_{key}") for key in ("step", "eval_score", "eval_kl"))
    if is_number(step):
        told = f" {score:.2f}" if is_number(score) else ""
        moved = f" at a KL of {kl:.1f} nats a completion" if is_number(kl) else ""
        text = f"PPO saved its best checkpoint, that of step {step}: the highest held-out score"
        yield Finding(text=f"{text}{told}{moved}{within}.", simulated=simulated)
    elif not any("eval_score" in row for row in run.logs.get(STAGE, [])):
        text = "PPO measured no held-out prompts while it ran, so it saved its last step, which "
        yield Finding(text=f"{text}need not be its best.", simulated=simulated)
    elif within:
        text = f"None of PPO's evaluations was{within} nats, so it saved its last step, beyond it."
        yield Finding(text=text, simulated=simulated, is_alarming=True)
    reason = metrics.get("stop_reason")
    if reason:
        yield Finding(text=f"PPO STOPPED EARLY: {reason}.", simulated=simulated, is_alarming=True)
    elif "stop_reason" in metrics:
        yield Finding(text="PPO went to its end; nothing stopped it.", simulated=simulated)


def _overrides(run: Run) -> Iterator[Finding]:
    for row in source_rows(run):
        if row["reason"] is not None:
            text = f"PPO was tuned against {row['name']}, whose gate FAILED and was overridden."
            yield Finding(
                text=f"{text} The reason given: {quoted(row['reason'])}",
                simulated=run.is_simulated(STAGE),
                is_alarming=True,
            )


def warning_rows(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """The run's warnings in their order, each with its place in the run."""
    found = metrics.get("warnings")
    rows = []
    for one in found if isinstance(found, list) else []:
        if isinstance(one, dict) and one.get("words"):
            step = f" (step {one['step']})" if one.get("step") is not None else ""
            place = f"rollout {one.get('rollout', '?')}{step}"
            rows.append({"place": place, "words": str(one["words"]).rstrip(".")})
    return rows


def phase_rows(log: Sequence[Row]) -> list[dict[str, Any]]:
    """Seconds, share and tokens a second of each phase over the whole run, as its log has them.

    A row's seconds are those since the row before it.
    """
    keys = dict.fromkeys(key for row in log for key in row if key.startswith("seconds/"))
    seconds = {key: _total(log, key) for key in keys}
    whole = sum(seconds.values())
    rows = []
    for key, spent in seconds.items():
        name = key.partition("/")[2]
        tokens = _total(log, key, f"tokens_per_second/{name}")
        rows.append(
            {
                "name": name,
                "purpose": PHASES.get(name, ""),
                "seconds": spent,
                "share": spent / whole if whole else None,
                "tokens_per_second": tokens / spent if spent and tokens else None,
            }
        )
    return rows


def _total(log: Sequence[Row], *keys: str) -> float:
    """The sum over the log's rows of the product of the keys, where a row has them all."""
    rows = [[value for key in keys if is_number(value := row.get(key))] for row in log]
    return sum((math.prod(row) for row in rows if len(row) == len(keys)), start=0.0)


def source_rows(run: Run) -> list[dict[str, Any]]:
    """What scored the completions, with the hash of its weights and what its gate said.

    `reason` is that of an override; None where nothing was overridden.
    """
    if STAGE not in run.stages:
        return []
    provenance = run.stages[STAGE].provenance
    lists = [value for value in provenance.values() if isinstance(value, list)]
    listed = [one for each in lists for one in each if isinstance(one, dict) and "gate" in one]
    return [_source(one) for one in listed]


def _source(one: Mapping[str, Any]) -> dict[str, Any]:
    gate = one["gate"] if isinstance(one["gate"], dict) else {}
    override = gate.get("override")
    reason = None
    if isinstance(override, dict):
        reason = str(override.get("reason") or "").strip() or "none was written"
    verdict = "its gate passed" if gate.get("passed") is True else "its gate did not pass"
    if reason is not None:
        verdict = "its gate FAILED and a person overrode it"
    elif not gate:
        verdict = f"no gate ({one['gate']})" if isinstance(one["gate"], str) else "no gate"
    return {
        "name": str(one.get("name", "unnamed")),
        "kind": str(one.get("kind", "")),
        "weight": one.get("weight"),
        "sha256": str(one.get("sha256") or ""),
        "verdict": verdict,
        "reason": reason,
        "gate_sha256": str(gate.get("sha256") or ""),
        "is_alarming": reason is not None or (bool(gate) and gate.get("passed") is not True),
    }


def _summary(rows: Sequence[Row]) -> str:
    """A rollout in a line: how many completions, their mean length, ending and score."""
    told = [f"{len(rows)} completions"]
    for key, words in (("num_tokens", "{:.0f} tokens"), ("score", "score {:.2f}")):
        values = [row[key] for row in rows if is_number(row.get(key))]
        if values:
            told.append(words.format(sum(values) / len(values)))
    ended = [bool(row["ended"]) for row in rows if row.get("ended") is not None]
    if ended:
        told.append(f"{percent(sum(ended) / len(ended))} ended by themselves")
    return ", ".join(told)


def ppo_figures(run: Run) -> list[Figure]:
    """The curves of the run, those that its log has."""
    if STAGE not in run.stages:
        return []
    log, simulated = run.logs.get(STAGE, []), run.is_simulated(STAGE)
    best = run.metrics(STAGE).get("best_step")
    drawn = []
    for title, note, keys, options in _curves(run, log):
        points = points_of(log, keys)
        if points:
            drawn.append(
                {
                    "title": title,
                    "spec": run_chart(points, best_step=best, **options),
                    "caption": curve_caption(title, points, share="unit" in options),
                    "note": note,
                    "simulated": simulated,
                }
            )
    return drawn


Curve = tuple[str, str, dict[str, str], dict[str, Any]]
"""A chart's title, what it says, the keys in it with their names, and how it is drawn."""

_CURVES: tuple[Curve, ...] = (
    (
        "Completion length",
        "Tokens. A length that moves with the score asks for a look at the completions.",
        {"completion_length": "rollouts", "eval_completion_length": "held out"},
        {"zero": True},
    ),
    (
        "Ended rate",
        "Completions that ended by themselves.",
        {"ended_rate": "rollouts", "eval_ended_rate": "held out"},
        {"unit": "%", "whole": True},
    ),
    (
        "Entropy",
        "Nats a token. Near 0 nothing is explored.",
        {"entropy": "entropy"},
        {"zero": True},
    ),
    (
        "Explained variance",
        "Of the returns, by the critic: 1 is perfect, below 0 worse than none.",
        {"explained_variance": "explained variance"},
        {"level": (0.0, "")},
    ),
    (
        "Clip fraction",
        "Tokens whose update was cut: above 30% the updates are too large.",
        {"clip_fraction": "policy", "value_clip_fraction": "value"},
        {"unit": "%", "zero": True},
    ),
    (
        "Repetition",
        "Word trigrams that were said before.",
        {"repetition": "repetition"},
        {"unit": "%", "zero": True},
    ),
)
"""Those that are drawn alike for every run."""


def _curves(run: Run, log: Sequence[Row]) -> list[Curve]:
    """The charts of a run: score and KL with what this one was held to, then the others."""
    budget = run.stages[STAGE].config.get("kl_budget")
    kl: dict[str, Any] = {"zero": True}
    if is_number(budget):
        kl["level"] = (budget, f"budget {budget:g}")
    best = " The dotted line is the best checkpoint." if run.metrics(STAGE).get("best_step") else ""
    score: Curve = (
        "Score",
        f"What is optimised, with 95% intervals.{best}",
        {"score": "rollouts", "eval_score": "held out"},
        {},
    )
    divergence: Curve = (
        "KL to the reference",
        "Nats a completion. It is the price of the score.",
        {"kl": "rollouts", "eval_kl": "held out"},
        kl,
    )
    return [score, *_by_source(log), divergence, *_CURVES]


def _by_source(log: Sequence[Row]) -> list[Curve]:
    """The scores of each source, where there are several."""
    keys = dict.fromkeys(key for row in log for key in row if key.startswith("score/"))
    if len(keys) < 2:
        return []
    names = {key: key.partition("/")[2] for key in keys}
    return [("Score by source", "Each as it was given, before weights.", names, {})]
