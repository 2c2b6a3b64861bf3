"""Raters of known accuracy, simulated: are they found out, and are soft labels better for it?

Each scenario draws a truth for every item, lets raters answer with their own accuracy, and gives
the answers (never the truth) to majority votes, to our one-coin Dawid-Skene and to crowd-kit's.
Then it compares with the truth. Everything here is simulated.

    python benchmarks/rater_reliability.py --json rater_reliability.json
"""

import argparse
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from machine import machine

from rlhf.feedback.dawid_skene import Answer, fit
from rlhf.feedback.soft_labels import smoothed_share
from rlhf.manifest import write_json

NUM_SEEDS = 10
PACKAGES = ("numpy", "scipy", "pandas", "crowd-kit")
_SMALLEST_P = 1e-6  # a label that is certain and wrong would cost an infinite log-loss


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`difficulty` above 0: items differ in how hard they are, which the model does not know."""

    name: str
    accuracies: tuple[float, ...]
    num_items: int
    overlap: int
    difficulty: float = 0.0


SPREAD = tuple(np.linspace(0.55, 0.95, 12).round(4).tolist())
SCENARIOS = (
    Scenario(name="12 raters .55-.95, 600 items x 5", accuracies=SPREAD, num_items=600, overlap=5),
    Scenario(name="12 raters .55-.95, 200 items x 3", accuracies=SPREAD, num_items=200, overlap=3),
    Scenario(name="12 raters .55-.95, 60 items x 2", accuracies=SPREAD, num_items=60, overlap=2),
    Scenario(
        name="3 good raters .80-.90, 300 items x 3",
        accuracies=(0.80, 0.85, 0.90),
        num_items=300,
        overlap=3,
    ),
    Scenario(
        name="4 good raters and one who guesses, 300 items x 3",
        accuracies=(0.80, 0.85, 0.85, 0.90, 0.50),
        num_items=300,
        overlap=3,
    ),
    Scenario(
        name="12 equal raters .75, 600 items x 5",
        accuracies=(0.75,) * 12,
        num_items=600,
        overlap=5,
    ),
    Scenario(
        name="12 raters .55-.95, items of differing difficulty, 600 x 5",
        accuracies=SPREAD,
        num_items=600,
        overlap=5,
        difficulty=1.0,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulated raters of known accuracy.")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--num_seeds", type=int, default=NUM_SEEDS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # crowd-kit's, of pandas
    found = []
    for scenario in SCENARIOS:
        found.append(run_scenario(scenario, options.num_seeds))
        print("\n".join(table(found[-1])), flush=True)
    if options.json:
        write_json(
            options.json,
            {
                "simulated": True,
                "num_seeds": options.num_seeds,
                "scenarios": found,
                **machine(PACKAGES),
            },
        )


def run_scenario(scenario: Scenario, num_seeds: int) -> dict:
    """The scenario's numbers: means over seeds, differences from majority votes with intervals."""
    seeds = [run_seed(scenario, seed) for seed in range(num_seeds)]
    methods = {
        name: {
            "accuracy": mean_of([one[name]["accuracy"] for one in seeds]),
            "log_loss": mean_of([one[name]["log_loss"] for one in seeds]),
            "p_chosen": mean_of([one[name]["p_chosen"] for one in seeds]),
            "seconds": float(np.mean([one[name]["seconds"] for one in seeds])),
        }
        for name in ("votes", "ours", "crowd_kit")
    }
    for name in ("ours", "crowd_kit"):
        for number in ("accuracy", "log_loss"):
            methods[name][f"{number}_minus_votes"] = mean_of(
                [one[name][number] - one["votes"][number] for one in seeds]
            )
    correlations = [one["correlation"] for one in seeds if one["correlation"] is not None]
    return {
        "scenario": asdict(scenario),
        "simulated": True,
        "correlation": mean_of(correlations) if correlations else None,
        "correlation_min": min(correlations, default=None),
        "mean_error": mean_of([one["error"] for one in seeds]),
        "interval_coverage": float(np.mean([hit for one in seeds for hit in one["covered"]])),
        "labels": methods,
    }


def run_seed(scenario: Scenario, seed: int) -> dict:
    """One draw of truth and answers, and what each method makes of them."""
    generator = np.random.default_rng([seed, scenario.num_items, scenario.overlap])
    truth = generator.random(scenario.num_items) < 0.5
    answers, right = draw_answers(scenario, truth, generator)
    accuracy = np.array(scenario.accuracies)
    if scenario.difficulty:  # what a rater's accuracy came to over the items they had
        accuracy = np.array([np.mean(right[k]) for k in range(len(accuracy))])
    started = time.perf_counter()
    ours = fit(answers)
    ours_s = time.perf_counter() - started
    names = sorted(ours.reliability)
    estimates = [ours.reliability[name] for name in names]
    values = np.array([one.value for one in estimates])
    varied = len(set(scenario.accuracies)) > 1
    started = time.perf_counter()
    votes = vote_shares(answers)
    votes_s = time.perf_counter() - started
    theirs, theirs_s = crowd_kit(answers)
    return {
        "correlation": float(np.corrcoef(values, accuracy)[0, 1]) if varied else None,
        "error": float(np.abs(values - accuracy).mean()),
        "covered": [one.low <= a <= one.high for one, a in zip(estimates, accuracy, strict=True)],
        "votes": score(votes, truth, votes_s),
        "ours": score(ours.p_yes, truth, ours_s),
        "crowd_kit": score(theirs, truth, theirs_s),
    }


def draw_answers(
    scenario: Scenario, truth: np.ndarray, generator: np.random.Generator
) -> tuple[list[Answer[int]], list[list[float]]]:
    """Answers, and for each rater how likely they were right on each item that they had."""
    log_odds = np.log(np.array(scenario.accuracies) / (1 - np.array(scenario.accuracies)))
    answers, chances = [], [[] for _ in scenario.accuracies]
    for item, yes in enumerate(truth):
        ease = np.exp(generator.normal(0, scenario.difficulty)) if scenario.difficulty else 1.0
        for rater in generator.choice(len(log_odds), scenario.overlap, replace=False):
            chance = 1 / (1 + np.exp(-log_odds[rater] * ease))
            chances[rater].append(chance)
            right = generator.random() < chance
            answers.append(Answer(question=item, rater=f"r{rater:02}", yes=bool(yes == right)))
    return answers, chances


def vote_shares(answers: list[Answer[int]]) -> dict[int, float]:
    """The smoothed share of yes of each item: what `aggregate` makes by default."""
    said: dict[int, list[bool]] = {}
    for one in answers:
        said.setdefault(one.question, []).append(one.yes)
    return {item: smoothed_share(sum(votes), len(votes)) for item, votes in said.items()}


def crowd_kit(answers: list[Answer[int]]) -> tuple[dict[int, float], float]:
    """The probabilities of crowd-kit's one-coin Dawid-Skene, and the seconds it took."""
    import pandas
    from crowdkit.aggregation import OneCoinDawidSkene

    rows = [(one.question, one.rater, int(one.yes)) for one in answers]
    frame = pandas.DataFrame(rows, columns=["task", "worker", "label"])
    started = time.perf_counter()
    found = OneCoinDawidSkene(n_iter=100).fit_predict_proba(frame)
    return found[1].to_dict(), time.perf_counter() - started


def score(p_yes: dict[int, float], truth: np.ndarray, seconds: float) -> dict[str, float]:
    """Accuracy (an even label counts half), log-loss in nats, and how sure the labels say they are.

    Labels that are as sure as they should be have a mean `p_chosen` equal to their accuracy.
    """
    p = np.array([p_yes[item] for item in range(len(truth))])
    p_true = np.where(truth, p, 1 - p)
    accuracy = np.where(p_true == 0.5, 0.5, p_true > 0.5)
    return {
        "accuracy": float(accuracy.mean()),
        "p_chosen": float(np.maximum(p, 1 - p).mean()),
        "log_loss": float(-np.log(np.clip(p_true, _SMALLEST_P, 1)).mean()),
        "seconds": seconds,
    }


def mean_of(values: list[float]) -> dict[str, float]:
    """The mean over seeds with Student's 95% interval."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return {"value": mean, "low": mean, "high": mean, "n": len(values)}
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def table(found: dict) -> list[str]:
    """The scenario as lines for reading."""
    correlation = found["correlation"]
    said = (
        "every rater is equal"
        if correlation is None
        else (f"correlation {correlation['value']:.3f} (least {found['correlation_min']:.3f})")
    )
    lines = [
        "",
        f"SIMULATED: {found['scenario']['name']}",
        f"  reliability: {said}, mean error {found['mean_error']['value']:.3f}, "
        f"95% intervals hold {found['interval_coverage']:.1%}",
        "  labels       accuracy   minus votes (95%)        log-loss   minus votes (95%)      "
        "p_chosen  seconds",
    ]
    for name, numbers in found["labels"].items():
        columns = []
        for number in ("accuracy", "log_loss"):
            difference = numbers.get(f"{number}_minus_votes")
            apart = "" if difference is None else _interval(difference)
            columns += [f"{numbers[number]['value']:8.4f}", f"{apart:30}"]
        sure = f"{numbers['p_chosen']['value']:8.4f}"
        lines.append(f"  {name:10} {' '.join(columns)} {sure} {numbers['seconds']:8.3f}")
    return lines


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


if __name__ == "__main__":
    main()
