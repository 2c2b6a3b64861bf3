"""How far a policy has moved: KL to the baseline, length, ending, repetition, variety."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from rlhf.errors import DataError
from rlhf.evaluation.statistics import clustered_bootstrap, mean_estimate, standard_error, wilson
from rlhf.evaluation.win_rate import share_of_wins
from rlhf.records import Estimate


def kl_estimate(logps: Sequence[float], baseline_logps: Sequence[float]) -> tuple[Estimate, float]:
    """The KL divergence to the baseline in nats a completion, and its standard error.

    `logps` [N] and `baseline_logps` [N] are the summed log-probabilities of one completion a
    prompt, sampled from the policy at temperature 1. The mean of their difference is unbiased
    and may fall below 0 by chance. Source: Schulman, Approximating KL Divergence (2020), k1.
    """
    if len(logps) != len(baseline_logps):
        raise DataError(f"{len(logps)} log-probabilities against {len(baseline_logps)}")
    gaps = np.asarray(logps, dtype=np.float64) - np.asarray(baseline_logps, dtype=np.float64)
    return mean_estimate(gaps), standard_error(gaps)


def repetition(text: str, n: int = 3) -> float:
    """The share of a text's word n-grams that repeat an earlier one; 0 when it has none."""
    grams = ngrams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(texts: Sequence[str], n: int = 2) -> float:
    """Different word n-grams over all of them, across texts; 0 when there are none.

    Source: Li et al., NAACL 2016 (distinct-n).
    """
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """The word n-grams of a text in order, case folded."""
    words = text.casefold().split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def num_words(text: str) -> int:
    """Words between white space: the length that a reader sees."""
    return len(text.split())


def shape_of(
    texts: Sequence[str],
    num_tokens: Sequence[int],
    ended: Sequence[bool],
    prompts: Sequence[Hashable],
) -> dict[str, Any]:
    """Length, ending, repetition and variety of one policy's completions, as metrics.

    `prompts` [N] says which prompt each completion is of: those of one are alike, and drawn
    together for the intervals.
    """
    tokens = [float(count) for count in num_tokens]
    if len(set(prompts)) == len(prompts):
        length, ending = mean_estimate(tokens), wilson(sum(ended), len(ended))
    else:
        length = clustered_bootstrap(tokens, prompts)
        ending = share_of_wins(np.asarray(ended, dtype=np.float64), clusters=prompts)
    return {
        "mean_tokens": length.value,
        "mean_tokens_ci": [length.low, length.high],
        "mean_words": float(np.mean([num_words(text) for text in texts])),
        "ended_rate": ending.value,
        "ended_rate_ci": [ending.low, ending.high],
        "repetition": float(np.mean([repetition(text) for text in texts])),
        "distinct_2": distinct(texts),
        "num_empty": sum(not text.strip() for text in texts),
        "n": len(texts),
    }
