"""Which charts a run has material for, and the rows that each one draws."""

from rlhf.report import charts
from rlhf.report.dpo import dpo_section_figures, dpo_stages
from rlhf.report.drawing import Figure, figure, row_of
from rlhf.report.findings import baseline_of, policies_of, ranked_policies
from rlhf.report.gate import gate_figures
from rlhf.report.ppo import ppo_figures
from rlhf.report.reading import Run
from rlhf.report.reward import reward_figures
from rlhf.report.wording import known, label_of


def figures(run: Run) -> dict[str, list[Figure]]:
    """The page's charts by section; a section without material is an empty list.

    A figure has `id`, `title`, `spec` (Vega-Lite), `caption` (the numbers in words, for those
    who cannot see or run the chart) and `simulated`.
    """
    sections = {
        "wins": [win_figure(run)],
        "shape": shape_figures(run),
        "reward": reward_figures(run),
        "reward_curves": curve_figures(run, "reward"),
        "gate": gate_figures(run),
        **dpo_section_figures(run),
        "ppo": ppo_figures(run),
        "curves": [
            curve
            for stage in run.logs
            if stage not in ("reward", "ppo", *dpo_stages(run))
            for curve in curve_figures(run, stage)
        ],
    }
    return {
        name: [{**item, "id": f"{name}-{index}"} for index, item in enumerate(filter(None, row))]
        for name, row in sections.items()
    }


def win_figure(run: Run) -> Figure | None:
    """Win rates over the baseline by every judge, with what picking the shorter would win."""
    evaluate, baseline = run.metrics("evaluate"), baseline_of(run)
    rows, simulated = [], False
    for name, policy in ranked_policies(run):
        for judge, rate in (policy.get("judges") or {}).items():
            if known(rate):
                marked = bool(rate.get("simulated"))
                label = f"{label_of(name)}, by {judge}"
                label += " (simulated)" if marked and "simulated" not in judge else ""
                rows.append(row_of(label, rate, f"judge: {judge}"))
                simulated |= marked
    for name, rate in (evaluate.get("shorter_baseline") or {}).items():
        if known(rate):
            label = f"always picking the shorter of {label_of(name)} and {label_of(baseline)}"
            rows.append(
                row_of(label, rate, f"picking the shorter, by {rate.get('judge', 'truth')}")
            )
    if not rows:
        return None
    spec = charts.interval_chart(rows, reference=0.5)
    drawn = figure(f"Win rates over {label_of(baseline)}", spec, rows, simulated)
    against = f"Share of held-out prompts won against {label_of(baseline)}, ties counting half."
    return {**drawn, "note": f"{against} Lines are 95% intervals; dashed is no difference."}


def shape_figures(run: Run) -> list[Figure]:
    """Length and share of ended completions, a bar a policy."""
    lengths, endings = [], []
    for name, policy in policies_of(run).items():
        for rows, key in ((lengths, "mean_tokens"), (endings, "ended_rate")):
            if policy.get(key) is not None:
                low, high = policy.get(f"{key}_ci") or (None, None)
                numbers = {"value": policy[key], "low": low, "high": high, "n": policy.get("n")}
                rows.append(row_of(label_of(name), numbers, name))
    made = []
    if lengths:
        spec = charts.bar_chart(lengths)
        made.append(figure("Tokens in a completion (mean)", spec, lengths, False, share=False))
    if endings:
        spec = charts.bar_chart(endings, share=True)
        made.append(figure("Completions ended by the model itself", spec, endings, False))
    return made


def curve_figures(run: Run, stage: str) -> list[Figure]:
    """A stage's training curves, those that its log has."""
    made = []
    simulated, log = run.is_simulated(stage), run.logs.get(stage, [])
    criteria = sorted({key for row in log for key in row if "accuracy_" in key})
    named = [*charts.CURVES.get(stage, charts.CURVES["dpo"])]
    named += [("Accuracy by criterion", tuple(criteria))] if stage == "reward" and criteria else []
    for title, keys in named:
        spec = charts.curve_chart(log, keys)
        if spec is None:
            continue
        heading = f"{label_of(stage)}: {title.lower()}"
        caption = f"{title} over {log[-1]['step']} steps of {stage}."
        made.append({"title": heading, "spec": spec, "caption": caption, "simulated": simulated})
    return made
