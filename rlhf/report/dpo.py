"""A run of DPO or its family on the page: what it learned from, its curves, what it warned of."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlhf.evaluation.statistics import wilson
from rlhf.manifest import Manifest
from rlhf.report.charts import is_number
from rlhf.report.dpo_figures import dpo_figures
from rlhf.report.drawing import Figure
from rlhf.report.reading import Row, Run
from rlhf.report.wording import Finding, interval, number, percent

NAMES = {"dpo": "DPO", "kto": "KTO", "online_dpo": "Online DPO"}
"""The stages that have such a section, and what sentences call them."""

PATHOLOGIES = "docs/dpo-pathologies.md"
PATHOLOGICAL = (
    *("chosen_falls", "overfitting", "no_learning", "margins_explode", "length_drift"),
    "kl_budget",
)
"""The causes that have a section there; what else a stage warns of its own page explains."""
_FEW_WARNINGS = 6


def dpo_stages(run: Run) -> dict[str, str]:
    """{name of the stage in the run: what sentences call it}; two of one kind keep their names."""
    found = {name: NAMES.get(one.stage) for name, one in run.stages.items()}
    return {
        name: called if name in NAMES else f"{called} ({name})"
        for name, called in found.items()
        if called is not None
    }


def section_id(name: str) -> str:
    """Where a stage's section stands on the page, apart from every other section."""
    return name if name in NAMES else f"tuned-{name}"


def dpo_sections(run: Run) -> list[dict[str, Any]]:
    """What each section shows; `figures` are numbered by the page."""
    return [
        {
            "id": section_id(name),
            "title": called,
            "simulated": run.is_simulated(name),
            "outcome": [finding.text for finding in _outcome(run, name, called)],
            "warnings": warning_rows(run.metrics(name), run.stages[name].stage),
            "facts": fact_rows(run.stages[name], run.logs.get(name, [])),
        }
        for name, called in dpo_stages(run).items()
    ]


def dpo_section_figures(run: Run) -> dict[str, list[Figure]]:
    """The charts of each section by its id."""
    return {
        section_id(name): dpo_figures(run.stages[name], run.logs.get(name, []))
        for name in dpo_stages(run)
    }


def dpo_findings(run: Run) -> list[Finding]:
    """How often the implicit reward agrees with held-out labels, and which checkpoint was kept."""
    return [
        finding
        for name, called in dpo_stages(run).items()
        for finding in [*_agreement(run, name, called), *_outcome(run, name, called)]
    ]


def dpo_warnings(run: Run) -> list[str]:
    """Each run's own warnings, those of the first causes, each with its place."""
    told = []
    for name, called in dpo_stages(run).items():
        rows = warning_rows(run.metrics(name))
        told += [f"{called}, {row['place']}: {row['words']}." for row in rows[:_FEW_WARNINGS]]
        if len(rows) > _FEW_WARNINGS:
            left = len(rows) - _FEW_WARNINGS
            told.append(f"{called} gave {left} more warnings: see its section.")
    return told


def warning_rows(metrics: Mapping[str, Any], stage: str = "dpo") -> list[dict[str, str]]:
    """The run's warnings in their order: the step, the words, and where the docs explain it."""
    found = metrics.get("warnings")
    rows = []
    for one in found if isinstance(found, list) else []:
        if isinstance(one, dict) and one.get("words"):
            place = _place(one)
            cause = str(one.get("cause") or "")
            rows.append(
                {
                    "place": place,
                    "words": str(one["words"]).rstrip("."),
                    "explained": _explained(cause, stage),
                }
            )
    return rows


def _explained(cause: str, stage: str) -> str:
    """Where the docs say what a warning means; nothing for a warning without a cause."""
    if cause in PATHOLOGICAL:
        return f"{PATHOLOGIES}#{cause}"
    return f"docs/{stage}.md" if cause else ""


def _place(warning: Mapping[str, Any]) -> str:
    """Where in the run a warning came up: its round, its step, or its end."""
    for key in ("round", "step"):
        if warning.get(key) is not None:
            return f"{key} {warning[key]}"
    return "at its end"


def _agreement(run: Run, name: str, called: str) -> Iterator[Finding]:
    metrics = run.metrics(name)
    accuracy, count = metrics.get("eval_rewards/accuracies"), metrics.get("num_eval")
    if not is_number(accuracy) or not isinstance(count, int) or not 0 <= accuracy <= 1 or not count:
        return
    rate = wilson(accuracy * count, count).as_dict()
    text = (
        f"{called}'s implicit reward prefers what the labels call chosen on {percent(accuracy)} "
        f"of {number(count)} held-out pairs ({interval(rate)})."
    )
    if rate["low"] <= 0.5 <= rate["high"]:
        text += " That interval holds one half: so few pairs do not show that it has learned."
    yield Finding(text=text, simulated=run.is_simulated(name))


def _outcome(run: Run, name: str, called: str) -> Iterator[Finding]:
    """Which checkpoint was kept and why the run ended, where it watched held-out loss."""
    metrics, simulated = run.metrics(name), run.is_simulated(name)
    step, loss = metrics.get("best_step"), metrics.get("best_eval_loss")
    if is_number(step):
        told = f", {loss:.4f}" if is_number(loss) else ""
        text = f"{called} kept its best checkpoint, that of step {step}: the lowest held-out loss"
        stopped = " It stopped there early." if metrics.get("stopped_early") else ""
        yield Finding(text=f"{text}{told}.{stopped}", simulated=simulated)
    if reason := metrics.get("stop_reason"):
        text = f"{called} STOPPED EARLY: {str(reason).rstrip('.')}."
        yield Finding(text=text, simulated=simulated, is_alarming=True)


def fact_rows(manifest: Manifest, log: Sequence[Row]) -> list[tuple[str, str]]:
    """What the run learned from and how, as pairs of a name and words."""
    rows = [
        ("Labels", _labels(manifest.metrics)),
        ("Data", _counts(manifest)),
        ("Left out or cut", _losses(manifest.provenance.get("losses"))),
        ("Loss", _loss(manifest.config)),
        ("Reference", str(manifest.provenance.get("reference") or "")),
        ("Prompts", str(manifest.provenance.get("prompt_sharing") or "")),
        ("Early stopping", _stopping(manifest)),
    ]
    return [(name, words) for name, words in rows if words]


def _labels(metrics: Mapping[str, Any]) -> str:
    kind = metrics.get("labels")
    told = {
        "soft": "soft: each pair's probability that chosen is better",
        "hard": "hard: chosen is taken as certainly better",
    }.get(str(kind), "")
    if not told:
        return ""
    ties = metrics.get("num_ties")
    if isinstance(ties, int):
        told += f"; {number(ties)} ties among them" if ties else "; no ties"
    if method := metrics.get("label_method"):
        told += f"; summed up by {method}"
    weights = metrics.get("weight_range")
    if isinstance(weights, list) and len(weights) == 2 and all(map(is_number, weights)):
        told += f"; weights {weights[0]:.2g} to {weights[1]:.2g}"
    return told + ("; margins taken" if metrics.get("uses_margin") is True else "")


def _counts(manifest: Manifest) -> str:
    train, heldout = manifest.metrics.get("num_train"), manifest.metrics.get("num_eval")
    if not isinstance(train, int):
        return ""
    what = "completions" if manifest.stage == "kto" else "pairs"
    told = f"{number(train)} {what} to learn from"
    return f"{told}, {number(heldout)} held out" if isinstance(heldout, int) else told


def _losses(losses: object) -> str:
    """What was dropped and cut, each with its count; that nothing was, is said too."""
    if not isinstance(losses, Mapping):
        return ""
    told = [
        f"{number(count)} {done} ({why})"
        for done in ("dropped", "cut")
        for why, count in (losses.get(done) or {}).items()
    ]
    whole = losses.get("num_rows")
    of = f" of {number(whole)} rows" if isinstance(whole, int) else ""
    return "; ".join(told) + of if told else f"nothing{of}"


def _loss(config: Mapping[str, Any]) -> str:
    kinds, weights = config.get("loss_type"), config.get("loss_weights")
    if not kinds:
        return ""
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if weights and len(weights) == len(kinds):
        kinds = [f"{weight:g} x {kind}" for kind, weight in zip(kinds, weights, strict=True)]
    told = " + ".join(map(str, kinds))
    for key in ("beta", "label_smoothing"):
        if is_number(config.get(key)) and config[key]:
            told += f", {key} {config[key]:g}"
    return told


def _stopping(manifest: Manifest) -> str:
    patience = manifest.config.get("early_stopping_patience")
    if not isinstance(patience, int):
        return ""
    if not patience:
        return "off: it trained to its last step"
    return f"after {patience} evaluations without a better held-out loss"
