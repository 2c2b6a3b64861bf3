"""What goes wrong in PPO, one function a cause: from the last rollouts to a sentence or None.

The thresholds are judgements, each with its reason; a warning asks a person to look, it decides
nothing.
"""

from collections.abc import Callable, Mapping
from statistics import correlation, fmean
from typing import Any

from scipy.stats import t

from rlhf.training.watching import SMOOTHED
from rlhf.training.watching import History as KeptMetrics

HISTORY = 128
"""Rollouts remembered: the longest window over which a slow drift is looked for."""
KEPT = (
    *("kl", "kl_se", "score", "score_std", "completion_length", "ended_rate", "entropy"),
    *("explained_variance", "clip_fraction", "repetition"),
)
NEGATIVE_KL_ROLLOUTS = 5
"""A KL is 0 or more; the estimate of one near 0 is below it in every other rollout by chance."""
NEGATIVE_KL_ERRORS = 3.0
"""Standard errors below 0 that the mean of those rollouts must lie, where they are known: a
policy that has not moved yet gives five negative estimates in a row once in 32 tries."""
LENGTH_ROLLOUTS = 8
"""Fewest rollouts in which a correlation of length with score is believed."""
LENGTH_WINDOWS = (8, 16, 32, 64, 128)
"""A policy may learn to be short within ten rollouts, or lengthen over a hundred."""
LENGTH_CHANGE = 0.2
"""Share by which the length must have changed: less is no change that a reader would notice."""
LENGTH_CORRELATION = 0.5
"""Least correlation that counts, however many rollouts: a quarter of the variance."""
LENGTH_CHANCE = 0.01
"""Chance (one-sided) of the correlation where length and score have nothing to do with another."""
ENDED_FALL = 0.5
"""A policy that ends half as many completions as it once did is unlearning to end."""
ENDED_POINTS = 0.1
"""And by so much at least: of 48 completions two that end or none are the same."""
ENTROPY_FALL = 0.25
"""Of the entropy at first; a healthy run loses up to a half of it, then nothing is explored."""
EXPLAINED_ROLLOUTS = 10
"""A fresh critic is worse than the mean return for some rollouts; after ten it learns nothing."""
MAX_CLIP_FRACTION = 0.3
"""A third of the tokens give no gradient; usual is 0.05 to 0.2."""
CONSTANT_SCORES = 1e-6
"""Standard deviation of scores below which they are all the same but for rounding."""
CONSTANT_ROLLOUTS = 3
"""A verifier's few 0s and 1s agree by chance now and then, not three times."""
REPETITION_RISE = 0.1
"""Of the share of word trigrams said before; SFT policies repeat 0.01 to 0.05 of theirs."""


class History(KeptMetrics):
    """The last `HISTORY` values of each kept metric, and each one's level at first and at best."""

    def __init__(self) -> None:
        super().__init__(KEPT, HISTORY)


def negative_kl(history: History, _: Any) -> str | None:
    """The KL to the reference estimated below 0 for long: not the policy that was sampled from."""
    kls = history.last("kl", NEGATIVE_KL_ROLLOUTS)
    if not kls or not max(kls) < 0:
        return None
    errors = history.last("kl_se", NEGATIVE_KL_ROLLOUTS)
    error = sum(each**2 for each in errors) ** 0.5
    if errors and sum(kls) > -NEGATIVE_KL_ERRORS * error:
        return None
    return (
        f"KL negative for {NEGATIVE_KL_ROLLOUTS} rollouts: sampling and training disagree "
        f"(mean {fmean(kls):.3g} nats a completion)"
    )


def length_hacking(history: History, _: Any) -> str | None:
    """Length and score move together, by more than chance, while the score rises."""
    lengths, scores = history.values["completion_length"], history.values["score"]
    for size in LENGTH_WINDOWS:
        words = _moving_together(lengths[-size:], scores[-size:])
        if words or size >= len(lengths):
            return words
    return None


def _moving_together(lengths: list[float], scores: list[float]) -> str | None:
    count = len(lengths)
    if count < LENGTH_ROLLOUTS or len(scores) != count:
        return None
    third = count // 3
    before, after = fmean(lengths[:third]), fmean(lengths[-third:])
    risen = fmean(scores[-third:]) > fmean(scores[:third])
    is_changed = before > 0 and abs(after / before - 1) >= LENGTH_CHANGE
    if not risen or not is_changed or min(scores) == max(scores):
        return None
    related = correlation(lengths, scores) * (1 if after > before else -1)
    if not related >= _least_correlation(count):
        return None
    direction = "rising" if after > before else "falling"
    return f"length {direction} with score ({before:.0f} to {after:.0f} tokens): length hacking?"


def _least_correlation(count: int) -> float:
    """The correlation of `count` pairs that chance exceeds once in 100, or the least that counts.

    r = t / sqrt(count - 2 + t^2), t the quantile of Student's distribution with count - 2.
    """
    quantile = float(t.ppf(1 - LENGTH_CHANCE, count - 2))
    by_chance = quantile / (count - 2 + quantile**2) ** 0.5
    return max(LENGTH_CORRELATION, float(by_chance))


def no_end(history: History, config: Any) -> str | None:
    """Every completion of a rollout was cut."""
    rate = history.last("ended_rate", 1)
    if not rate or rate[0] > 0:
        return None
    return (
        f"no completion ended by itself within {config.max_completion_length} tokens: the end "
        "token is never sampled, or --max_completion_length is too short"
    )


def fewer_ends(history: History, _: Any) -> str | None:
    """The policy ended far more of its completions once."""
    rate, best = history.level("ended_rate"), history.highest.get("ended_rate")
    if rate is None or best is None or rate >= ENDED_FALL * best or best - rate < ENDED_POINTS:
        return None
    return (
        f"ended rate fell from {best:.0%} to {rate:.0%}: the policy unlearns to end; raise "
        "--missing_eos_penalty?"
    )


def entropy_collapse(history: History, _: Any) -> str | None:
    """Little is left of the entropy that the policy began with."""
    entropy, first = history.level("entropy"), history.first.get("entropy")
    if entropy is None or first is None or entropy >= ENTROPY_FALL * first:
        return None
    return (
        f"entropy fell from {first:.3g} to {entropy:.3g} nats a token: the policy explores no "
        "more; raise --entropy_coef or --kl_coef, or lower --learning_rate?"
    )


def useless_critic(history: History, _: Any) -> str | None:
    """The critic predicts returns worse than their mean does."""
    column = history.last("explained_variance", EXPLAINED_ROLLOUTS)
    if not column or not max(column) < 0:
        return None
    return (
        f"explained variance negative for {EXPLAINED_ROLLOUTS} rollouts (now {column[-1]:.2f}): "
        "the critic is worse than none; raise --critic_learning_rate or --critic_warmup?"
    )


def much_clipping(history: History, _: Any) -> str | None:
    """So many ratios leave the clipping range that the updates are too large."""
    fraction = history.level("clip_fraction")
    if fraction is None or fraction <= MAX_CLIP_FRACTION:
        return None
    return (
        f"clip fraction of {fraction:.0%} over {SMOOTHED} rollouts: the updates are too large; "
        "lower --learning_rate or --num_iterations?"
    )


def constant_scores(history: History, _: Any) -> str | None:
    """All completions score the same, so none is better than another."""
    column = history.last("score_std", CONSTANT_ROLLOUTS)
    if not column or not max(column) <= CONSTANT_SCORES:
        return None
    return (
        f"every completion of {CONSTANT_ROLLOUTS} rollouts scored {history.values['score'][-1]:.3g}"
        ": there is nothing to learn from; look at the reward"
    )


def rising_repetition(history: History, _: Any) -> str | None:
    """The policy repeats itself more than it did at first."""
    share, first = history.level("repetition"), history.first.get("repetition")
    if share is None or first is None or share <= first + REPETITION_RISE:
        return None
    return (
        f"repetition rose from {first:.0%} to {share:.0%} of word trigrams: does repeating buy "
        "score?"
    )


CAUSES: Mapping[str, Callable[[History, Any], str | None]] = {
    "negative_kl": negative_kl,
    "length_hacking": length_hacking,
    "no_end": no_end,
    "fewer_ends": fewer_ends,
    "entropy_collapse": entropy_collapse,
    "useless_critic": useless_critic,
    "much_clipping": much_clipping,
    "constant_scores": constant_scores,
    "rising_repetition": rising_repetition,
}
