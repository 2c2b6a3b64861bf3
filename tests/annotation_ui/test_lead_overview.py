"""The overview in plain functions: what it says in words, what the charts hold, how it is kept."""

import threading
from datetime import UTC, datetime, timedelta

import altair as alt
import pytest

from annotation_ui.lead import charts
from annotation_ui.lead.answers_given import answer_figures
from annotation_ui.lead.figures import (
    agreement_rows,
    filled_over_time,
    forecast_cone,
    throughput_figure,
)
from annotation_ui.lead.findings import (
    agreement_word,
    concerns,
    done_answer,
    help_answer,
    pooled_gold,
    work_answer,
)
from annotation_ui.lead.reports import FRESH_S, LASTING_S, Reports
from rlhf.feedback.protocols import Protocol, protocol_of
from rlhf.feedback.quality import Forecast, RaterSummary
from rlhf.feedback.store import Progress
from rlhf.records import Estimate, Judgement

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def estimate(value: float, low: float, high: float, n: int = 40) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=n)


def rater(name: str = "ada", **changes) -> RaterSummary:
    """A rater of whom nothing is known but that they have judged 40."""
    nothing = dict.fromkeys(
        [
            "gold_accuracy",
            "self_consistency",
            "agreement",
            "reliability",
            "side_bias",
            "length_bias",
            "median_seconds",
            "too_fast_share",
            "last_at",
        ]
    )
    known = {"name": name, "simulated": False, "num_judged": 40, "num_skipped": 0, "num_gold": 0}
    return RaterSummary(**{**nothing, **known, "weight": 1.0, **changes})


def progress(filled: int, wanted: int, **changes) -> Progress:
    values = {"num_items": wanted, "num_complete": filled, "num_judgements": filled}
    values |= {"num_wanted": wanted, "num_filled": filled, "num_skipped": 0}
    return Progress(**{**values, "num_annotators": 2, "num_simulated": 0, **changes})


def expected(low=None, median=None, high=None, *, reason: str = "") -> Forecast:
    return Forecast(
        num_left=50,
        pace_per_hour=None if median is None else 12.5,
        finish_low=low,
        finish_median=median,
        finish_high=high,
        reason=reason,
    )


def judgement(number: int, *, item: str = "a", at: datetime = NOON, **values) -> Judgement:
    known = {"id": str(number), "campaign": "c", "item": item, "annotator": f"rater {number}"}
    known |= {"simulated": False, "seconds": 5.0, "created_at": at, "shown_order": (0, 1)}
    return Judgement(**{**known, **values})


def text_of(answer: dict) -> str:
    numbers = [[line["value"] or "", " ", *line["words"]] for line in answer["lines"]]
    lines = [answer["headline"], *numbers]
    return "\n".join(
        "".join(piece if isinstance(piece, str) else piece["time"] for piece in line)
        for line in lines
    )


@pytest.mark.parametrize(
    ("value", "word"),
    [(-0.2, "no"), (0.0, "no"), (0.1, "slight"), (0.3, "fair"), (0.41, "moderate"),
     (0.7, "substantial"), (0.9, "almost perfect")],
)  # fmt: skip
def test_agreement_in_a_word(value, word):
    assert agreement_word(value) == word


def report(value: float, low: float, high: float) -> dict:
    alpha = {"value": value, "low": low, "high": high, "n": 100}
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    return {
        "percent_agreement": 0.744,
        "percent_agreement_ci": [0.69, 0.79],
        "krippendorff_alpha": {"nominal": nothing, "ordinal": alpha, "interval": nothing},
    }


def test_the_work_is_told_with_numbers_intervals_and_words():
    gold = rater(gold_accuracy=estimate(0.875, 0.71, 0.95), num_gold=40)
    answer = work_answer(report(0.52, 0.38, 0.63), estimate(0.91, 0.88, 0.94), [gold])
    text = text_of(answer)
    assert answer["tone"] == "warn"
    assert "Moderate agreement between raters" in text
    assert (
        "0.52 Krippendorff's alpha, ordinal (0.38 to 0.63): moderate, its interval fair to sub"
        in text
    )
    assert "74% of the time two raters answer the same (69% to 79%)" in text
    assert "88% of gold items answered as expected" in text  # 35 of 40
    assert "91% noise ceiling (88% to 94%)" in text


def test_the_work_is_bad_where_gold_is_whatever_the_agreement():
    gold = rater(gold_accuracy=estimate(0.5, 0.35, 0.65))
    answer = work_answer(report(0.9, 0.85, 0.95), None, [gold])
    assert (answer["tone"], answer["headline"]) == (
        "bad",
        ["Almost perfect agreement between raters"],
    )


def test_one_rater_alone_and_no_gold_is_too_early():
    answer = work_answer({}, None, [rater()])
    assert (answer["tone"], answer["headline"]) == ("unknown", ["Too early to say"])
    assert "No item has been judged by two raters yet" in text_of(answer)


def test_pooled_gold_counts_answers_and_leaves_the_excluded_out():
    people = [
        rater("a", gold_accuracy=estimate(0.5, 0.2, 0.8, n=10)),
        rater("b", gold_accuracy=estimate(1.0, 0.9, 1.0, n=30)),
        rater("c", gold_accuracy=estimate(0.0, 0.0, 0.1, n=30), weight=0.0),
    ]
    found = pooled_gold(people)
    assert (found.value, found.n) == (35 / 40, 40)
    assert found.low < 0.875 < found.high
    assert pooled_gold([rater()]) is None


def test_done_by_when_with_its_interval():
    low, median, high = NOON + HOUR, NOON + 2 * HOUR, NOON + 4 * HOUR
    answer = done_answer(progress(50, 100), expected(low, median, high))
    text = text_of(answer)
    assert text.startswith(f"50% done, the rest by about {median.isoformat()}")
    assert "50 of 100 judgements wanted" in text
    span = f"done between {low.isoformat()} and {high.isoformat()} (95%)"
    assert f"12.5 judgements an hour lately: {span}" in text
    assert answer["bar"] == {"num": 50, "wanted": 100}


@pytest.mark.parametrize(
    ("filled", "wanted", "headline"),
    [(0, 0, "There is nothing to judge yet"), (100, 100, "It is done"), (1, 1000, "Under 1% done"),
     (999, 1000, "99% done"), (0, 10, "0% done")],
)  # fmt: skip
def test_progress_is_never_rounded_to_done_or_to_nothing(filled, wanted, headline):
    answer = done_answer(progress(filled, wanted), expected(reason="too little to go by"))
    assert answer["headline"] == [headline]


def test_no_forecast_says_why():
    answer = done_answer(
        progress(5, 100), expected(reason="nothing was judged in the last 14 days")
    )
    assert answer["tone"] == "unknown"
    assert "No forecast. Nothing was judged in the last 14 days." in text_of(answer)


def test_an_end_that_is_not_in_sight_is_said():
    answer = done_answer(progress(5, 100), expected(NOON, NOON + HOUR, None))
    assert "no later day that the pace so far could tell" in text_of(answer)


def test_concerns_are_sure_only_when_the_whole_interval_is_beyond_the_line():
    sure = rater(gold_accuracy=estimate(0.4, 0.2, 0.6))
    perhaps = rater(gold_accuracy=estimate(0.6, 0.4, 0.8))
    fine = rater(gold_accuracy=estimate(0.8, 0.6, 0.9))
    found = [concerns(one, [one], too_fast_s=3) for one in (sure, perhaps, fine)]
    assert [[one.sure for one in each] for each in found] == [[True], [False], []]
    assert found[0][0].words == "answers 40% (20% to 60%, n 40) of the gold items as expected"


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"reliability": estimate(0.5, 0.4, 0.6)}, "reliability"),
        ({"self_consistency": estimate(0.5, 0.4, 0.6)}, "consistency"),
        ({"too_fast_share": 0.25}, "pace"),
        ({"num_judged": 20, "num_skipped": 20}, "skips"),
        ({"side_bias": estimate(0.8, 0.7, 0.9)}, "side"),
        ({"side_bias": estimate(0.2, 0.1, 0.3)}, "side"),
        ({"length_bias": estimate(0.95, 0.85, 1.0)}, "length"),
    ],
)
def test_each_concern_is_told_in_words(changes, about):
    one = rater(**changes)
    others = [rater("grace", length_bias=estimate(0.6, 0.5, 0.7))]
    found = concerns(one, [one, *others], too_fast_s=3)
    assert [concern.about for concern in found] == [about]
    assert "%" in found[0].words


def test_a_lean_is_told_as_what_it_is_for():
    shorter = rater(length_bias=estimate(0.2, 0.1, 0.3), side_bias=estimate(0.2, 0.1, 0.3))
    others = [rater("grace", length_bias=estimate(0.55, 0.5, 0.6))]
    words = [one.words for one in concerns(shorter, [shorter, *others], too_fast_s=3)]
    assert words == [
        "prefers the side shown last in 80% of decided answers",
        "prefers the shorter one in 80% of decided answers, the others in 45%",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"num_judged": 5, "gold_accuracy": estimate(0.1, 0.0, 0.2)},
        {"weight": 0.0, "gold_accuracy": estimate(0.1, 0.0, 0.2)},
        {"side_bias": estimate(0.6, 0.55, 0.65)},
        {"side_bias": estimate(0.7, 0.45, 0.9)},
        {"length_bias": estimate(0.95, 0.85, 1.0)},  # nobody to compare with
        {"too_fast_share": 0.1},
    ],
)
def test_too_little_the_excluded_and_small_leanings_are_no_concern(changes):
    one = rater(**changes)
    assert concerns(one, [one], too_fast_s=3) == []


def test_who_needs_help_lists_the_surest_first_and_marks_simulated():
    people = [
        rater("perhaps", gold_accuracy=estimate(0.6, 0.4, 0.8)),
        rater("sure", gold_accuracy=estimate(0.4, 0.2, 0.6), simulated=True),
        rater("fine"),
        rater("new", num_judged=2),
        rater("out", weight=0.0),
    ]
    answer = help_answer(people, too_fast_s=3, standings={})
    found = [(person["name"], person["sure"], person["simulated"]) for person in answer["people"]]
    assert found == [("sure", True, True), ("perhaps", False, False)]
    assert (answer["tone"], answer["headline"]) == ("bad", ["2 of 5 raters may need help"])
    assert "1 with fewer than 10 judgements: too early to say" in text_of(answer)
    assert "1 excluded" in text_of(answer)


def test_an_unqualified_rater_is_listed_before_they_have_judged_anything():
    answer = help_answer(
        [rater(num_judged=0, num_gold=5)], too_fast_s=3, standings={"ada": "unqualified"}
    )
    assert answer["people"][0]["reasons"] == [
        "did not pass the qualification round, so gets no items"
    ]


@pytest.mark.parametrize(
    ("people", "headline"),
    [([], "Nobody has judged yet"), ([rater(num_judged=3)], "Too early to say"),
     ([rater()], "Nobody stands out")],
)  # fmt: skip
def test_nobody_needs_help(people, headline):
    answer = help_answer(people, too_fast_s=3, standings={})
    assert answer["headline"] == [headline]


# ---- charts ---------------------------------------------------------------------------------


def test_gaps_in_agreement_break_the_line():
    some = estimate(0.8, 0.7, 0.9)
    days = [some, some, None, None, some, None, some]
    rows = agreement_rows([(NOON + k * 24 * HOUR, each) for k, each in enumerate(days)])
    assert [row["stretch"] for row in rows] == [0, 0, 2, 3]


def test_empty_hours_have_no_bar_and_stand_in_the_table():
    counts = [3, 0, 0, 2]
    made = throughput_figure([(NOON + k * HOUR, num) for k, num in enumerate(counts)])
    bars = made["spec"]["data"]["values"]
    assert [bar["num"] for bar in bars] == [3, 2]
    assert bars[0]["end"] == (NOON + HOUR).isoformat()
    assert [row[1] for row in made["table"]["rows"]] == counts
    assert "one hour" in made["note"]


def test_an_hour_alone_is_an_hour_wide():
    made = throughput_figure([(NOON, 4)])
    assert made["spec"]["data"]["values"][0]["end"] == (NOON + HOUR).isoformat()


def test_places_beyond_the_overlap_and_skips_fill_nothing():
    rows = [judgement(k, at=NOON + k * HOUR, verdict=1) for k in range(3)]
    skipped = judgement(9, item="b", skip="unclear")
    steps = filled_over_time([*rows, skipped], overlap=2)
    assert steps == [(NOON, 0), (NOON, 1), (NOON + HOUR, 2)]
    assert filled_over_time([skipped], overlap=2) == []


def test_the_progress_line_is_thinned_but_ends_where_it_ends():
    rows = [judgement(k, item=str(k), at=NOON + k * HOUR, verdict=1) for k in range(1000)]
    steps = filled_over_time(rows, overlap=1)
    assert (len(steps), steps[0][1], steps[-1][1]) == (300, 0, 1000)


def test_the_cone_opens_from_now_to_each_finish():
    low, median, high = NOON + 1 * HOUR, NOON + 2 * HOUR, NOON + 4 * HOUR
    cone = forecast_cone(progress(60, 100), expected(low, median, high), NOON)
    assert [(row["fast"], row["likely"], row["slow"]) for row in cone] == [
        (60.0, 60.0, 60.0),
        (100.0, 80.0, 70.0),
        (100.0, 100.0, 80.0),
        (100.0, 100.0, 100.0),
    ]


def test_without_a_slow_end_the_cone_stays_open():
    cone = forecast_cone(progress(60, 100), expected(NOON + HOUR, NOON + 2 * HOUR, None), NOON)
    assert cone[-1]["at"] == (NOON + 4 * HOUR).isoformat()
    assert cone[-1]["slow"] == 60.0
    assert forecast_cone(progress(60, 100), expected(reason="?"), NOON) == []


def domains(spec: dict) -> list:
    """Every scale domain in a specification, whatever layer it stands in."""
    found = []
    for key, value in spec.items():
        if key == "scale" and isinstance(value, dict):
            found.append(value.get("domain", "zero" if value.get("zero") else None))
        elif isinstance(value, dict):
            found += domains(value)
        elif isinstance(value, list):
            found += [one for each in value if isinstance(each, dict) for one in domains(each)]
    return found


def test_no_axis_is_cut():
    share = {"value": 0.9, "low": 0.85, "high": 0.95, "n": 4}
    at = NOON.isoformat()
    pace = {"at": at, "seconds": 31.0, "words": ""}
    drawn = {
        "bars": charts.bars_over_time([{"start": at, "end": at, "num": 90}]),
        "band": charts.band_over_time([{"at": at, "stretch": 0, **share}]),
        "progress": charts.progress_over_time([{"at": at, "num": 90}], [], 100),
        "dots": charts.dots_with_whiskers([{"label": "ada", "simulated": False, **share}]),
        "counts": charts.bars([{"label": "A", "num": 90}]),
        "pace": charts.seconds_over_time([pace, pace], too_fast_s=3),
    }
    for name, spec in drawn.items():
        alt.Chart.from_dict(spec)  # raises unless it is a specification of Vega-Lite
        found = domains(spec)
        assert found, name
        for domain in found:
            assert domain == "zero" or domain[0] == 0, (name, domain)


def test_one_long_pause_does_not_flatten_the_pace():
    rows = [{"at": NOON.isoformat(), "seconds": 10.0, "words": ""} for _ in range(99)]
    rows.append({**rows[0], "seconds": 4000.0})
    spec = charts.seconds_over_time(rows, too_fast_s=3)
    values = spec["layer"][1]["data"]["values"] if "data" in spec["layer"][1] else None
    assert values is not None
    assert max(row["height"] for row in values) == 10.0
    assert max(row["seconds"] for row in values) == 4000.0


# ---- what was answered ----------------------------------------------------------------------


def counts_of(made: dict) -> dict:
    return dict(made["table"]["rows"])


def test_verdicts_are_counted_by_the_side_on_screen():
    rows = [
        judgement(1, verdict=-3),
        judgement(2, verdict=-3, shown_order=(1, 0)),
        judgement(3, verdict=0, both_bad=True),
        judgement(4, skip="unclear"),
    ]
    (made,) = answer_figures(Protocol(task="pairwise"), rows)
    found = counts_of(made)
    assert found["A is much better"] == found["B is much better"] == found["About the same"] == 1
    assert (found["Both are bad"], found["Skipped"]) == (1, 1)
    assert "A is much better 1" in made["caption"]


def test_ratings_have_a_chart_for_each_criterion_with_its_anchors():
    criteria = [
        {"name": "help", "title": "Helpful", "low": 0, "high": 2, "anchors": {"0": "not at all"}},
        {"name": "true", "title": "True", "low": 1, "high": 3},
    ]
    protocol = protocol_of("ratings", {"criteria": criteria})
    rows = [judgement(1, ratings={"help": (0.0, 2.0), "true": (None, 3.0)})]
    first, second = answer_figures(protocol, rows)
    assert counts_of(first) == {"0: not at all": 1, "1": 0, "2": 1}
    assert counts_of(second) == {"1": 0, "2": 0, "3": 1}
    assert "Mean 1.0" in first["note"]


def test_rankings_count_the_places_on_screen():
    rows = [judgement(1, ranking=(1, 2, 2), shown_order=(2, 1, 0)),
            judgement(2, ranking=(1, 1, 2), shown_order=(0, 1, 2))]  # fmt: skip
    (made,) = answer_figures(Protocol(task="ranking"), rows)
    assert counts_of(made) == {
        "shown in place 1": 1, "shown in place 2": 1, "shown in place 3": 1, "Skipped": 0,
    }  # fmt: skip


def test_rewrites_and_flags():
    rows = [judgement(1, rewrite="x", rewrite_of=0, shown_order=(1, 0)), judgement(2, rewrite="y")]
    (made,) = answer_figures(Protocol(task="rewrite"), rows)
    assert counts_of(made)["Rewrote the one shown in place 2"] == 1
    assert counts_of(made)["Written anew"] == 1
    protocol = protocol_of("flags", {"flags": ["unsafe"]})
    (flags,) = answer_figures(protocol, [judgement(1, flags=(("unsafe",), ()))])
    assert counts_of(flags) == {"Unsafe or harmful": 1, "No flag": 1, "Skipped": 0}


def test_no_answer_is_no_chart_but_words():
    (made,) = answer_figures(Protocol(task="pairwise"), [])
    assert (made["spec"], made["caption"]) == (None, "No judgement yet.")


# ---- reports are made once ------------------------------------------------------------------


class Clock:
    """Time that goes on when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def kept(monkeypatch):
    """Reports over a store whose state a test sets, and what was made so far."""
    clock, states, made = Clock(), {"c": 1}, []
    monkeypatch.setattr(
        "annotation_ui.lead.reports.state_of", lambda store, campaign: states[campaign]
    )
    reports = Reports(store=None, clock=clock)

    def get() -> int:
        return reports.get("overview", "c", lambda: made.append(1) or len(made))

    return clock, states, reports, get


def test_a_report_is_made_once_while_nothing_changes(kept):
    clock, states, _reports, get = kept
    assert get() == 1
    states["c"] = 2
    assert get() == 1  # too young to look at the store again
    clock.now += FRESH_S
    assert get() == 2
    clock.now += FRESH_S
    assert get() == 2  # looked, and nothing had changed
    clock.now += LASTING_S
    assert get() == 3  # forecasts speak of now


def test_a_report_that_took_long_is_made_seldom(kept):
    clock, states, reports, _get = kept
    made = []

    def slow() -> int:
        clock.now += 3
        made.append(1)
        return len(made)

    assert reports.get("slow", "c", slow) == 1
    states["c"] = 2
    clock.now += 59
    assert reports.get("slow", "c", slow) == 1
    clock.now += 1
    assert reports.get("slow", "c", slow) == 2


def test_a_decision_makes_it_anew_at_once(kept):
    _clock, _states, reports, get = kept
    assert get() == 1
    reports.forget("another")
    assert get() == 1
    reports.forget("c")
    assert get() == 2


def test_a_report_that_failed_is_tried_again(kept):
    _clock, _states, reports, get = kept

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        reports.get("overview", "c", fail)
    assert get() == 1


def test_ten_who_ask_at_once_cost_one(kept):
    clock, _states, reports, _get = kept
    begun, go_on, made = threading.Event(), threading.Event(), []

    def make() -> int:
        begun.set()
        assert go_on.wait(10)
        made.append(1)
        return len(made)

    answers = []
    askers = [
        threading.Thread(target=lambda: answers.append(reports.get("slow", "c", make)))
        for _ in range(10)
    ]
    for asker in askers:
        asker.start()
    assert begun.wait(10)
    go_on.set()
    for asker in askers:
        asker.join(10)
    assert answers == [1] * 10

    clock.now += LASTING_S  # while it is made anew, the others are given the one before
    begun.clear()
    go_on.clear()
    slow = threading.Thread(target=lambda: reports.get("slow", "c", make))
    slow.start()
    assert begun.wait(10)
    assert reports.get("slow", "c", make) == 1
    go_on.set()
    slow.join(10)
    assert reports.get("slow", "c", make) == 2
