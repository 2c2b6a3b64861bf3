"""How reliable each rater is, and how sure each answer, by the one-coin Dawid-Skene model.

Each yes-or-no question has a true answer; rater r gives it with probability a_r, whatever it is,
and raters err independently (Dawid and Skene 1979; one coin: Zhang, Chen, Zhou and Jordan 2016).

Crowd-kit has this model without what is needed here: answers known beforehand (gold,
adjudication), weights of raters, intervals, a fixed prior of one half (its estimated share of
"the second one is better" makes labels depend on the order in which completions were written
down), and a prior on a_r (its maximum likelihood calls a rater of three answers infallible). A
test holds the two together where they coincide.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlhf.records import Estimate

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Question = TypeVar("Question", bound=Hashable)

PRIOR_RIGHT, PRIOR_WRONG = 4.0, 2.0
"""What is believed of an unknown rater: as if they had given four right answers and two wrong ones.

One vote by itself then says 2/3, as `soft_labels.smoothed_share` does. Of 2:1, 4:2, 6:3 and 8:4
this had nearly the best labels in all scenarios of benchmarks/rater_reliability.py with intervals
that still hold the truth as often as they say.
"""
_MAX_ROUNDS = 2000
_TOLERANCE = 1e-8
_Z95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[Question]):
    """One rater's answer (yes or no) to one question."""

    question: Question
    rater: str
    yes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit(Generic[Question]):
    """What the model says: the probability of yes per question, the reliability per rater.

    A rater whose questions nobody else answered, and that are not known, has no reliability:
    nothing tells of it. `prior` is the share of yes.
    """

    p_yes: dict[Question, float]
    reliability: dict[str, Estimate | None]
    prior: float


def fit(
    answers: Sequence[Answer[Question]],
    *,
    known: Mapping[Question, float] | None = None,
    weights: Mapping[str, float] | None = None,
    prior: float | None = 0.5,
) -> Fit[Question]:
    """Fit the model by expectation-maximisation, beginning at the share of yes of each question.

    `known` fixes the probability of yes of some questions. `weights` (1 unless given) scale what
    a rater's answers count for the others' labels, 0 not at all; their own reliability is
    measured all the same. `prior` None: the share of yes is estimated. Reliabilities are the
    mode, the intervals are normal on the log-odds scale with the observed information.
    """
    if not answers:
        return Fit(p_yes={}, reliability={}, prior=0.5 if prior is None else prior)
    table = _Table.of(answers, known or {}, weights or {})
    accuracy = np.full(len(table.raters), PRIOR_RIGHT / (PRIOR_RIGHT + PRIOR_WRONG))
    share = 0.5 if prior is None else prior
    p_yes = table.shares()
    for _ in range(_MAX_ROUNDS):
        if prior is None:
            share = float((p_yes.sum() + 1) / (len(p_yes) + 2))
        accuracy = table.accuracies(p_yes)
        before, p_yes = p_yes, table.expected(accuracy, share)
        if np.abs(before - p_yes).max() < _TOLERANCE:
            break
    return Fit(
        p_yes=dict(zip(table.questions, p_yes.tolist(), strict=True)),
        reliability=table.estimates(accuracy, p_yes),
        prior=share,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table(Generic[Question]):
    """Answers as arrays, one entry an answer: its question, its rater, +1 for yes, -1 for no."""

    questions: list[Question]
    raters: list[str]
    question: Integers
    rater: Integers
    sign: Floats
    weight: Floats
    known: Floats
    """Per question its known probability of yes; NaN where it is not known."""

    @classmethod
    def of(
        cls,
        answers: Sequence[Answer[Question]],
        known: Mapping[Question, float],
        weights: Mapping[str, float],
    ) -> "_Table[Question]":
        questions = list(dict.fromkeys(one.question for one in answers))
        raters = sorted({one.rater for one in answers})
        question_at = {name: place for place, name in enumerate(questions)}
        rater_at = {name: place for place, name in enumerate(raters)}
        return cls(
            questions=questions,
            raters=raters,
            question=np.array([question_at[one.question] for one in answers]),
            rater=np.array([rater_at[one.rater] for one in answers]),
            sign=np.array([1.0 if one.yes else -1.0 for one in answers]),
            weight=np.array([weights.get(one.rater, 1.0) for one in answers]),
            known=np.array([known.get(name, np.nan) for name in questions]),
        )

    def shares(self) -> Floats:
        """The weighted share of yes of each question, drawn towards one half: where EM begins."""
        yes = self._by_question(self.weight * (self.sign > 0))
        return self._with_known((yes + 1) / (self._by_question(self.weight) + 2))

    def accuracies(self, p_yes: Floats) -> Floats:
        """The M-step: expected right answers of each rater, with the prior's, over all."""
        right = np.where(self.sign > 0, p_yes[self.question], 1 - p_yes[self.question])
        total = self._by_rater(np.ones_like(right)) + PRIOR_RIGHT + PRIOR_WRONG
        return (self._by_rater(right) + PRIOR_RIGHT) / total

    def expected(self, accuracy: Floats, share: float) -> Floats:
        """The E-step: log-odds of yes are the prior's plus each answer's log a / (1 - a)."""
        log_odds = np.log(accuracy / (1 - accuracy))[self.rater]
        total = self._by_question(self.weight * self.sign * log_odds)
        total += np.log(share / (1 - share))
        return self._with_known(_probability(total))

    def estimates(self, accuracy: Floats, p_yes: Floats) -> dict[str, Estimate | None]:
        """Each rater's reliability with its interval; None for one whom nothing tells of."""
        log_odds = np.log(accuracy / (1 - accuracy))
        spread = _Z95 * np.sqrt(np.diag(self._covariance(accuracy, p_yes)))
        low, high = (_probability(log_odds + side * spread) for side in (-1, 1))
        checkable = self._checkable()
        counts = np.bincount(self.rater, minlength=len(self.raters))
        return {
            name: Estimate(
                value=float(accuracy[place]),
                low=float(low[place]),
                high=float(high[place]),
                n=int(counts[place]),
            )
            if checkable[place]
            else None
            for place, name in enumerate(self.raters)
        }

    def _covariance(self, accuracy: Floats, p_yes: Floats) -> Floats:
        """Of the log-odds of the accuracies: the inverse of the observed information.

        By Louis (1982) that is the complete data's, sum of a (1 - a) over a rater's answers (and
        the prior's), less the variance of the complete data's score given the answers: over the
        questions, p (1 - p) times the outer product of the answers' signs.
        """
        counts = np.bincount(self.rater, minlength=len(self.raters)) + PRIOR_RIGHT + PRIOR_WRONG
        information = np.diag(counts * accuracy * (1 - accuracy))
        unsure = np.where(np.isnan(self.known), p_yes * (1 - p_yes), 0.0)
        for members in self._answers_by_question():
            signs, raters = self.sign[members], self.rater[members]
            lost = unsure[self.question[members[0]]] * np.outer(signs, signs)
            np.subtract.at(information, np.ix_(raters, raters), lost)
        values, vectors = np.linalg.eigh(information)
        return np.asarray((vectors / np.maximum(values, 1e-6)) @ vectors.T)

    def _answers_by_question(self) -> list[Integers]:
        order = np.argsort(self.question, kind="stable")
        ends = np.cumsum(np.bincount(self.question, minlength=len(self.questions)))
        return list(np.split(order, ends[:-1]))

    def _checkable(self) -> NDArray[np.bool_]:
        """Which raters answered a question that another (who counts) did, or that is known."""
        counting = self._by_question((self.weight > 0).astype(np.float64))[self.question]
        others = counting - (self.weight > 0)
        return np.asarray(
            self._by_rater(((others > 0) | ~np.isnan(self.known[self.question])).astype(float)) > 0
        )

    def _by_question(self, values: Floats) -> Floats:
        return _sums(self.question, values, len(self.questions))

    def _by_rater(self, values: Floats) -> Floats:
        return _sums(self.rater, values, len(self.raters))

    def _with_known(self, p_yes: Floats) -> Floats:
        return np.where(np.isnan(self.known), p_yes, self.known)


def _probability(log_odds: Floats) -> Floats:
    """Without an overflow where raters who only contradict each other leave the odds unknown."""
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -700, 700))))


def _sums(places: Integers, values: Floats, number: int) -> Floats:
    return np.asarray(np.bincount(places, weights=values, minlength=number), dtype=np.float64)
