"""How often one policy's completion beats another's on the same prompt, ties half."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from rlhf.errors import DataError
from rlhf.evaluation.statistics import clustered_bootstrap, wilson
from rlhf.records import Estimate

DEFAULT_TIE_TOLERANCE = 1e-5
"""Scores closer than this are a tie: more than what padding adds to a float32 score."""


def outcomes(
    scores: Sequence[float],
    baseline_scores: Sequence[float],
    *,
    tie_tolerance: float = DEFAULT_TIE_TOLERANCE,
) -> NDArray[np.float64]:
    """1 where a score beats the baseline's on the same prompt, 0 where it loses, 0.5 tied [N].

    DataError when the two differ in length or hold a value that is not finite.
    """
    if len(scores) != len(baseline_scores):
        raise DataError(f"{len(scores)} scores against {len(baseline_scores)}; score both policies")
    gaps = np.asarray(scores, dtype=np.float64) - np.asarray(baseline_scores, dtype=np.float64)
    if not np.isfinite(gaps).all():
        raise DataError(f"a judge's score of prompt {_first_broken(gaps)} is NaN or infinite")
    return np.where(np.abs(gaps) <= tie_tolerance, 0.5, (gaps > 0).astype(np.float64))


def win_rate(
    scores: Sequence[float],
    baseline_scores: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    tie_tolerance: float = DEFAULT_TIE_TOLERANCE,
    seed: int = 0,
) -> Estimate:
    """The share of prompts that a policy wins, with a 95% interval by bootstrap over prompts.

    `clusters` [N] names each row's prompt, for sets in which one occurs twice.
    """
    results = outcomes(scores, baseline_scores, tie_tolerance=tie_tolerance)
    return share_of_wins(results, clusters=clusters, seed=seed)


def share_of_wins(
    results: NDArray[np.float64], *, clusters: Sequence[Hashable] | None = None, seed: int = 0
) -> Estimate:
    """The mean of outcomes (0, 0.5, 1) [N] with its 95% interval.

    Resampling equal outcomes gives an interval of no width, which would claim certainty;
    Wilson's stands in there, over prompts.
    """
    if results.size and np.ptp(results) == 0:
        num_clusters = len(set(clusters)) if clusters is not None else len(results)
        stand_in = wilson(float(results[0]) * num_clusters, num_clusters)
        return Estimate(
            value=float(results[0]), low=stand_in.low, high=stand_in.high, n=len(results)
        )
    return clustered_bootstrap(results, clusters, seed=seed)


def shorter_wins(
    lengths: Sequence[float],
    baseline_lengths: Sequence[float],
    scores: Sequence[float],
    baseline_scores: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    tie_tolerance: float = DEFAULT_TIE_TOLERANCE,
    seed: int = 0,
) -> Estimate:
    """What always picking the shorter of a policy's and the baseline's completion would win.

    It stands beside the win rate, which is what always picking the policy's wins over the
    same pairs: a policy that is no better than this may have learned length alone. Equal
    lengths count half.
    """
    results = outcomes(scores, baseline_scores, tie_tolerance=tie_tolerance)
    gaps = np.asarray(lengths, dtype=np.float64) - np.asarray(baseline_lengths, dtype=np.float64)
    picked = np.where(gaps < 0, results, np.where(gaps > 0, 1 - results, 0.5))
    return share_of_wins(picked, clusters=clusters, seed=seed)


def _first_broken(gaps: NDArray[np.float64]) -> int:
    return int(np.flatnonzero(~np.isfinite(gaps))[0]) + 1
