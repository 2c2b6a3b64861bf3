"""Whether the model knows its training pairs better than pairs it never saw."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlhf.evaluation.gate.accuracy import accuracy_of
from rlhf.evaluation.gate.checks import Check, exact, judged, number_text, unmeasured
from rlhf.evaluation.gate.heldout import ScoredPairs
from rlhf.evaluation.statistics import bootstrap_statistic


def overfitting_check(
    train: ScoredPairs | None,
    heldout: ScoredPairs,
    early_stopping: Mapping[str, Any],
    threshold: float | None,
    seed: int,
) -> Check:
    """Accuracy on a sample of the training pairs minus that on held-out ones.

    The interval is a bootstrap over the prompts of both, which share none.
    """
    name, title = "overfitting", "Training accuracy over held-out"
    if train is None or not len(train):
        reason = "the reward folder has no train_sample.jsonl; train it again to measure this"
        return unmeasured(name, title, reason, threshold, details={**early_stopping})
    right = np.concatenate([train.right, heldout.right])
    is_train = np.arange(len(right)) < len(train)
    prompts = [("train", p) for p in train.prompts] + [("heldout", p) for p in heldout.prompts]
    found = bootstrap_statistic(
        lambda rows: difference_of_means(right[rows], is_train[rows], ~is_train[rows]),
        prompts,
        seed=seed,
    )
    on_train, on_heldout = accuracy_of(train), accuracy_of(heldout)
    words = (
        f"training {number_text(on_train)}, held-out {number_text(on_heldout)}: "
        f"{number_text(found)} apart; {early_stopping['words']}"
    )
    if early_stopping["early_stopping"]:
        words += (
            "; that checkpoint was chosen on these very held-out pairs, so that every number on "
            "them flatters a little"
        )
    details = {"train": on_train.as_dict(), "heldout": on_heldout.as_dict(), **early_stopping}
    return judged(name, title, found, threshold, words=words, rule="at most", details=details)


def separation_check(num_trained_on: int | None, n: int, threshold: float | None) -> Check:
    """The share of the `n` held-out pairs whose prompt is trained on too: they measure memory."""
    name, title = "separation", "Held-out prompts are not trained on"
    if num_trained_on is None:
        reason = "the reward stage did not count the prompts on both sides; train again"
        return unmeasured(name, title, reason, threshold, n=n)
    words = f"{num_trained_on} of {n} held-out pairs have a prompt that is trained on too"
    found = exact(num_trained_on / n, n)
    return judged(name, title, found, threshold, words=words, rule="at most")


def difference_of_means(values: Any, first: Any, second: Any) -> float:
    """The mean of `values` [N] where `first` minus that where `second`; NaN when one is empty."""
    if not first.any() or not second.any():
        return float("nan")
    return float(values[first].mean() - values[second].mean())


def early_stopping_of(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What a reward stage's manifest says of early stopping: asked for, and what it did.

    The stage keeps the checkpoint that is best by the loss on the very pairs that are held out.
    """
    patience = config.get("early_stopping_patience")
    used = bool(patience) or bool(config.get("load_best_model_at_end"))
    stopped_at = metrics.get("num_steps") if metrics.get("stopped_early") else None
    best = metrics.get("best_step")
    if not used:
        words = "early stopping was not used"
    elif stopped_at is not None:
        words = f"early stopping ended it at step {stopped_at}"
    else:
        words = "early stopping was on and did not end it"
    if used and best is not None:
        words += f", the best checkpoint is of step {best}"
    return {
        "early_stopping": used,
        "stopped_early_at": stopped_at,
        "best_step": best,
        "words": words,
    }
