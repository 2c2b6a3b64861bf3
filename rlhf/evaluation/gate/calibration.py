"""Whether the score gap says how sure one may be, and which temperature would make it so."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from rlhf.evaluation.calibration import ece, folded, reliability_bins
from rlhf.evaluation.gate.checks import Check, asked, judged, number_text, unmeasured
from rlhf.evaluation.gate.heldout import ScoredPairs
from rlhf.evaluation.statistics import bootstrap_statistic

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NUM_BINS = 10
_LOG_TEMPERATURES = (-5.0, 5.0)  # e**-5 to e**5: beyond it the fit has no optimum
_NUM_PERFECT = 200


def calibration_check(pairs: ScoredPairs, threshold: float | None, seed: int) -> Check:
    """ECE of p(chosen preferred) = sigmoid(score gap), with the bins of its diagram.

    Taken from the side that the model favours, since chosen stands first by construction.
    Against soft labels where there are any. Few pairs give an ECE above 0 even to a perfect
    model: `expected_if_calibrated` says how much at this n.
    """
    found = bootstrap_statistic(
        lambda rows: gap_ece(pairs.gaps[rows], pairs.outcomes[rows]), pairs.prompts, seed=seed
    )
    perfect = expected_ece(pairs.gaps, seed)
    against = "soft labels" if pairs.is_soft else "hard labels"
    details = {
        "against": against,
        "expected_if_calibrated": perfect,
        "num_bins": NUM_BINS,
        "bins": diagram(pairs.gaps, pairs.outcomes),
        "ece_hard": gap_ece(pairs.gaps, np.ones(len(pairs))),
    }
    words = f"ECE {number_text(found)} against {against} (a perfect model: {perfect:.2f} at this n)"
    title = "Calibration"
    return judged(
        "calibration", title, found, threshold, words=words, rule="at most", details=details
    )


def temperature_check(pairs: ScoredPairs, threshold: float | None, seed: int) -> Check:
    """The temperature fitted on half of the prompts, and what it does for the other half.

    Scores divided by it are calibrated best. Above 1 the model is surer than it may be. The
    interval is a bootstrap over the fitted half's prompts.
    """
    name, title = "temperature", "Temperature"
    fitted = half_by_prompt(pairs)
    rest = ~fitted
    if not fitted.any() or not rest.any():
        reason = "all prompts fall into one half; nothing is left to measure a temperature on"
        return unmeasured(name, title, reason, threshold, n=len(pairs))
    gaps, outcomes = pairs.gaps[fitted], pairs.outcomes[fitted]
    prompts = [prompt for prompt, inside in zip(pairs.prompts, fitted, strict=True) if inside]
    found = bootstrap_statistic(
        lambda rows: fit_temperature(gaps[rows], outcomes[rows]),
        prompts,
        num_samples=200,
        seed=seed,
    )
    if np.isposinf(found.value):
        return _never_calibrated(len(gaps), threshold)
    details = before_and_after(pairs.gaps[rest], pairs.outcomes[rest], found.value)
    before, after = details["before"], details["after"]
    words = (
        f"{number_text(found)}; on the other half ECE {before['ece']:.2f} -> {after['ece']:.2f}, "
        f"loss {before['loss']:.3f} -> {after['loss']:.3f} n={details['n']}"
    )
    return judged(name, title, found, threshold, words=words, rule="at most", details=details)


def _never_calibrated(n: int, threshold: float | None) -> Check:
    """The check for scores so wrong that no temperature is high enough: not for want of data."""
    return Check(
        name="temperature",
        title="Temperature",
        passed=None if threshold is None else False,
        value=None,
        low=None,
        high=None,
        n=n,
        threshold=threshold,
        words=f"of {n} pairs scores are so sure where they are wrong that the best temperature "
        "has no end: equal scores for all would fit better",
        details={"rule": "at most", "asked": asked("at most", threshold)},
    )


def half_by_prompt(pairs: ScoredPairs) -> Bools:
    """Which pairs belong to the half that is fitted [N]: by a hash of the prompt's own hash."""
    digests = [
        hashlib.sha256(f"temperature:{prompt}".encode()).digest() for prompt in pairs.prompts
    ]
    return np.array([digest[0] % 2 == 0 for digest in digests], dtype=np.bool_)


def fit_temperature(gaps: Floats, outcomes: Floats) -> float:
    """The temperature T > 0 that minimises the mean loss of sigmoid(gap / T) against `outcomes`.

    `gaps` [N], `outcomes` [N] in [0, 1]. Infinite where ever larger temperatures are better (the
    scores are worse than none), NaN where ever smaller ones are (every pair right, with hard
    labels) or where nothing can be fitted. Source: Guo et al., ICML 2017, 4.2, for two classes.
    """
    if not len(gaps) or not np.any(gaps):
        return float("nan")
    fit = minimize_scalar(
        lambda log_t: mean_loss(gaps / np.exp(log_t), outcomes),
        bounds=_LOG_TEMPERATURES,
        method="bounded",
        options={"xatol": 1e-6},
    )
    least, most = (abs(fit.x - edge) < 1e-2 for edge in _LOG_TEMPERATURES)
    if most:
        return float("inf")
    return float("nan") if least else float(np.exp(fit.x))


def mean_loss(gaps: Floats, outcomes: Floats) -> float:
    """The mean of -p log sigmoid(gap) - (1 - p) log sigmoid(-gap), in nats."""
    losses = outcomes * np.logaddexp(0, -gaps) + (1 - outcomes) * np.logaddexp(0, gaps)
    return float(losses.mean())


def before_and_after(gaps: Floats, outcomes: Floats, temperature: float) -> dict[str, Any]:
    """ECE and loss of pairs that the temperature was not fitted on, without it and with it."""
    scaled = gaps / temperature if np.isfinite(temperature) else gaps
    return {
        "n": len(gaps),
        "before": {"ece": gap_ece(gaps, outcomes), "loss": mean_loss(gaps, outcomes)},
        "after": {"ece": gap_ece(scaled, outcomes), "loss": mean_loss(scaled, outcomes)},
    }


def gap_ece(gaps: Floats, outcomes: Floats) -> float:
    """The ECE of sigmoid(gap) [N] against outcomes [N], folded to the favoured side."""
    return ece(*folded(expit(gaps), outcomes), num_bins=NUM_BINS)


def expected_ece(gaps: Floats, seed: int) -> float:
    """The ECE that a calibrated model with these gaps has by chance: outcomes drawn from it."""
    p = expit(gaps)
    rng = np.random.default_rng(seed)
    drawn = (rng.random((_NUM_PERFECT, len(p))) < p).astype(np.float64)
    return float(np.mean([gap_ece(gaps, outcomes) for outcomes in drawn]))


def diagram(gaps: Floats, outcomes: Floats) -> list[dict[str, Any]]:
    """The reliability diagram: per bin what was said, and what came with its interval."""
    return [
        {
            "low": bin_.low,
            "high": bin_.high,
            "mean_probability": bin_.mean_probability,
            "observed": bin_.observed.as_dict(),
        }
        for bin_ in reliability_bins(*folded(expit(gaps), outcomes), num_bins=NUM_BINS)
    ]
