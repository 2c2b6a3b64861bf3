"""The curves of a run of DPO or its family, those that its log has."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.manifest import Manifest
from rlhf.report.charts import is_number
from rlhf.report.drawing import Figure
from rlhf.report.reading import Row
from rlhf.report.run_charts import curve_caption, points_of, run_chart

Curve = tuple[str, str, dict[str, str], dict[str, Any]]
"""A chart's title, what it says, the keys in it with their names, and how it is drawn."""

_Z = 1.96  # of a 95% interval

_SIDES = {
    "chosen": "chosen",
    "rejected": "rejected",
    "eval_chosen": "chosen, held out",
    "eval_rejected": "rejected, held out",
}


def dpo_figures(manifest: Manifest, log: Sequence[Row]) -> list[Figure]:
    """The charts of one stage from its log."""
    rows = with_derived(log, manifest.config.get("beta"))
    found = manifest.metrics.get("best_step")
    best = int(found) if is_number(found) else None
    drawn = []
    for title, note, keys, options in _curves(manifest, rows):
        points = points_of(rows, keys)
        if points:
            marked = " The dotted line is the checkpoint that was kept." if title == "Loss" else ""
            drawn.append(
                {
                    "title": title,
                    "spec": run_chart(points, best_step=best, **options),
                    "caption": curve_caption(title, points, share="unit" in options),
                    "note": note + (marked if best is not None else ""),
                    "simulated": manifest.simulated,
                }
            )
    return drawn


def with_derived(log: Sequence[Row], beta: object) -> list[Row]:
    """The log's rows with what the curves need beside them.

    `chosen` and `rejected` (and `eval_` of each): log p of the completion less that under the
    reference, in nats. TRL logs beta times it as the implicit reward, so it is divided by beta.
    And the interval of the sampled KL, from its standard error.
    """
    found = []
    for row in log:
        made: dict[str, Any] = {}
        for prefix in ("", "eval_"):
            for side in ("chosen", "rejected"):
                reward = row.get(f"{prefix}rewards/{side}")
                if is_number(reward) and is_number(beta) and beta:
                    made[f"{prefix}{side}"] = reward / beta
            kl, error = row.get(f"{prefix}kl"), row.get(f"{prefix}kl_se")
            if is_number(kl) and is_number(error):
                made[f"{prefix}kl_ci_low"] = kl - _Z * error
                made[f"{prefix}kl_ci_high"] = kl + _Z * error
        found.append({**row, **made})
    return found


def _curves(manifest: Manifest, log: Sequence[Row]) -> list[Curve]:
    sampled = _kto_curves() if manifest.stage == "kto" else _sampled_curves(manifest, log)
    whose = "labelled completions" if manifest.stage == "kto" else "pairs' completions"
    return [
        (
            "Loss",
            "Held-out loss that rises while training loss falls is overfitting.",
            {"loss": "training", "eval_loss": "held out"},
            {},
        ),
        (
            "Chosen and rejected against the reference",
            f"Log-probability of the {whose} less the reference's, in nats. The loss asks for the "
            "gap: where both lines fall, the policy is leaving its chosen completions too.",
            _SIDES,
            {"level": (0.0, "the reference"), "zero": True},
        ),
        (
            "Accuracy of the implicit reward",
            "Pairs whose chosen completion gained more over the reference than the rejected one. "
            "At the first step policy and reference are one: neither gains, and none counts.",
            {"rewards/accuracies": "training", "eval_rewards/accuracies": "held out"},
            {"unit": "%", "whole": True, "level": (0.5, "")},
        ),
        (
            "Margin of the implicit reward",
            "Beta times the gap between the two lines of chosen and rejected.",
            {"rewards/margins": "training", "eval_rewards/margins": "held out"},
            {"level": (0.0, ""), "zero": True},
        ),
        *sampled,
    ]


def _kto_curves() -> list[Curve]:
    return [
        (
            "Reference point of the loss",
            "Nats, of completions after prompts that are not theirs: what a completion must gain "
            "to count as one. It is no measure of what the policy writes.",
            {"kl": "training", "eval_kl": "held out"},
            {"zero": True},
        )
    ]


def _sampled_curves(manifest: Manifest, log: Sequence[Row]) -> list[Curve]:
    """Of what the policy writes: on held-out prompts, and in the rounds of online DPO."""
    return [
        (
            "Score",
            "Of the completions of a round, by what labels them: it is what is optimised.",
            {"score": "rounds", "eval_score": "held out"},
            {},
        ),
        (
            "KL to the reference",
            "Nats a completion, of completions that the policy samples, with 95% intervals.",
            {"kl": "rounds", "eval_kl": "held out"},
            {"zero": True} | _level(manifest.config.get("kl_budget"), "budget"),
        ),
        (
            "Completion length",
            "Tokens of what the policy samples.",
            {"completion_length": "rounds", "eval_completion_length": "held out"},
            {"zero": True} | _level(_reference_length(manifest, log), "the reference:"),
        ),
        (
            "Ended rate",
            "Sampled completions that ended by themselves.",
            {"ended_rate": "rounds", "eval_ended_rate": "held out"},
            {"unit": "%", "whole": True},
        ),
    ]


def _level(value: object, name: str) -> dict[str, Any]:
    return {"level": (value, f"{name} {value:g}")} if is_number(value) else {}


def _reference_length(manifest: Manifest, log: Sequence[Row]) -> object:
    """The mean length of the reference's own completions, which is measured once."""
    key = "eval_ref_completion_length"
    rows: list[Mapping[str, Any]] = [manifest.metrics, *log]
    found = next((row[key] for row in rows if is_number(row.get(key))), None)
    return None if found is None else round(found, 1)
