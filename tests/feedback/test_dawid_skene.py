"""One-coin Dawid-Skene: by hand, by its own equations, and beside crowd-kit."""

import math
import random
import statistics
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.feedback.dawid_skene import Answer, Fit, fit

ANSWERS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from("abcd"), st.booleans()),
    min_size=1,
    max_size=30,
    unique_by=lambda one: one[:2],
)


def answers(*triples: tuple[int, str, bool]) -> list[Answer[int]]:
    return [Answer(question=q, rater=r, yes=yes) for q, r, yes in triples]


def simulated(accuracies: dict[str, float], num: int, overlap: int, seed: int) -> list[Answer[int]]:
    """Answers to `num` questions, half of them truly yes (the even ones)."""
    chance = random.Random(seed)
    return [
        Answer(question=q, rater=r, yes=(q % 2 == 0) == (chance.random() < accuracies[r]))
        for q in range(num)
        for r in chance.sample(sorted(accuracies), overlap)
    ]


def test_one_rater_says_two_thirds_and_nothing_of_themselves() -> None:
    # a = (4 + n a) / (6 + n), hence a = 2/3 whatever n is; each answer is then 2/3 sure
    found = fit(answers((0, "ann", True), (1, "ann", False), (2, "ann", True)))
    assert found.p_yes == pytest.approx({0: 2 / 3, 1: 1 / 3, 2: 2 / 3}, abs=1e-6)
    assert found.reliability == {"ann": None}


def test_two_who_only_contradict_each_other_may_be_anything() -> None:
    said = answers(*[(q, rater, rater == "ann") for q in range(8) for rater in ("ann", "bob")])
    for estimate in fit(said).reliability.values():
        assert estimate is not None
        assert (estimate.low, estimate.high) == pytest.approx((0, 1), abs=1e-6)


def test_reliability_from_gold_alone_by_hand() -> None:
    # 8 of 10 right: (8 + 4) / (10 + 6) = 3/4. Information of the log-odds 16 * 3/4 * 1/4 = 3, so
    # ln 3 +- 1.96 / sqrt 3 = 1.0986 +- 1.1316, back on the scale of shares:
    said = answers(*[(q, "ann", q < 8) for q in range(10)])
    estimate = fit(said, known=dict.fromkeys(range(10), 1.0)).reliability["ann"]
    assert estimate is not None
    assert estimate.value == pytest.approx(3 / 4)
    assert estimate.low == pytest.approx(1 / (1 + math.exp(0.0330)), abs=1e-3)
    assert estimate.high == pytest.approx(1 / (1 + math.exp(-2.2302)), abs=1e-3)
    assert estimate.n == 10


def test_the_more_reliable_of_two_who_differ_is_believed() -> None:
    # gold: ann 18 of 18, bob 9 of 18, so about 22/24 against 13/24; then they differ on one
    said = [(q, "ann", True) for q in range(18)] + [(q, "bob", q < 9) for q in range(18)]
    found = fit(
        answers(*said, (99, "ann", False), (99, "bob", True)), known=dict.fromkeys(range(18), 1.0)
    )
    ann, bob = (found.reliability[name] for name in ("ann", "bob"))
    assert ann is not None
    assert bob is not None
    odds = bob.value / (1 - bob.value) * (1 - ann.value) / ann.value  # of yes
    assert found.p_yes[99] == pytest.approx(odds / (1 + odds))
    assert found.p_yes[99] < 0.1


@settings(deadline=None)  # the first call imports libraries
@given(ANSWERS)
def test_result_solves_the_equations_of_the_mode(triples: list[tuple[int, str, bool]]) -> None:
    said = answers(*triples)
    found = fit(said)
    for rater in {one.rater for one in said}:
        own = [one for one in said if one.rater == rater]
        right = sum(found.p_yes[o.question] if o.yes else 1 - found.p_yes[o.question] for o in own)
        estimate = found.reliability[rater]
        if estimate is not None:
            assert estimate.value == pytest.approx((right + 4) / (len(own) + 6), abs=1e-4)
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@settings(deadline=None)  # the first call imports libraries
@given(ANSWERS, st.sets(st.integers(0, 5)))
def test_turning_questions_round_turns_their_answers_alone(
    triples: list[tuple[int, str, bool]], turned: set[int]
) -> None:
    plain = fit(answers(*triples))
    round_ = fit(answers(*[(q, r, yes != (q in turned)) for q, r, yes in triples]))
    assert round_.p_yes == pytest.approx(
        {q: 1 - p if q in turned else p for q, p in plain.p_yes.items()}, abs=1e-5
    )
    assert values(round_) == pytest.approx(values(plain), abs=1e-5)


@settings(deadline=None)  # the first call imports libraries
@given(ANSWERS)
def test_names_of_raters_change_nothing(triples: list[tuple[int, str, bool]]) -> None:
    names = dict(zip("abcd", "zyxw", strict=True))
    plain = fit(answers(*triples))
    renamed = fit(answers(*[(q, names[r], yes) for q, r, yes in triples]))
    assert renamed.p_yes == pytest.approx(plain.p_yes, abs=1e-5)
    assert values(renamed) == pytest.approx(
        {names[r]: one for r, one in values(plain).items()}, abs=1e-5
    )


def test_excluded_rater_moves_no_label_and_is_measured_all_the_same() -> None:
    said = simulated({"a": 0.9, "b": 0.8, "c": 0.85, "liar": 0.2}, 200, 4, seed=1)
    found = fit(said, weights={"liar": 0.0})
    without = fit([one for one in said if one.rater != "liar"])
    assert found.p_yes == pytest.approx(without.p_yes, abs=1e-6)
    assert found.reliability["liar"] is not None
    assert found.reliability["liar"].value == pytest.approx(0.2, abs=0.08)


def test_smaller_weight_moves_labels_less() -> None:
    said = answers((0, "a", True), (0, "b", True), (1, "a", True), (1, "b", False), (2, "b", True))
    weighed = [fit(said, weights={"b": w}).p_yes[2] for w in (1.0, 0.5, 0.0)]
    assert weighed[0] > weighed[1] > weighed[2] == 0.5


def test_known_accuracies_are_found_within_their_intervals() -> None:
    accuracies = {f"r{k:02}": 0.55 + 0.4 * k / 11 for k in range(12)}
    inside, correlations = [], []
    for seed in range(10):
        found = fit(simulated(accuracies, 600, 5, seed=seed)).reliability
        estimates = [found[name] for name in accuracies]
        assert None not in estimates
        for estimate, truth in zip(estimates, accuracies.values(), strict=True):
            assert estimate is not None
            inside.append(estimate.low <= truth <= estimate.high)
        found_values = [one.value for one in estimates if one]
        correlations.append(statistics.correlation(found_values, list(accuracies.values())))
    assert sum(inside) / len(inside) == pytest.approx(0.95, abs=0.05)
    assert statistics.mean(correlations) >= 0.9


def test_share_of_yes_is_estimated_where_it_is_not_given() -> None:
    chance = random.Random(0)
    truths = [chance.random() < 0.1 for _ in range(400)]
    said = [
        Answer(question=q, rater=r, yes=truth == (chance.random() < 0.9))
        for q, truth in enumerate(truths)
        for r in "abc"
    ]
    assert fit(said, prior=None).prior == pytest.approx(0.1, abs=0.03)
    assert fit(said).prior == 0.5


def test_crowd_kit_finds_the_same_where_the_two_coincide() -> None:
    # many answers, so that our prior on raters matters little; each question mirrored, so that
    # crowd-kit's estimated share of yes is one half
    said = simulated({"a": 0.9, "b": 0.75, "c": 0.65, "d": 0.8}, 300, 4, seed=3)
    mirrored = [Answer(question=1000 + o.question, rater=o.rater, yes=not o.yes) for o in said]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas
        from crowdkit.aggregation import OneCoinDawidSkene

        rows = [(o.question, o.rater, int(o.yes)) for o in said + mirrored]
        frame = pandas.DataFrame(rows, columns=["task", "worker", "label"])
        theirs = OneCoinDawidSkene(n_iter=300, tol=1e-9).fit(frame)
    ours = fit(said)
    assert values(ours) == pytest.approx(theirs.skills_.to_dict(), abs=0.015)
    probabilities = theirs.probas_[1].to_dict()
    assert ours.p_yes == pytest.approx({q: probabilities[q] for q in ours.p_yes}, abs=0.03)


def test_no_answers_say_nothing() -> None:
    assert fit([]) == Fit(p_yes={}, reliability={}, prior=0.5)


def values(found: Fit[int]) -> dict[str, float | None]:
    """The reliabilities without intervals; -1 for those that nothing tells of."""
    return {name: one.value if one else -1.0 for name, one in found.reliability.items()}
