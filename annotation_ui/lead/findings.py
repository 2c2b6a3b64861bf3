"""The three questions of whoever leads a campaign, answered in plain words with numbers.

Is the work good, will it be done, who needs help. An answer has a `headline`, a `tone` (good,
warn, bad or unknown) and `lines`: a number (`value`, or None) with what it is of (`words`). Words
are lists of texts and moments (see `time_cell`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annotation_ui.lead.charts import interval_words, percent, time_cell
from rlhf.feedback.quality import Forecast, RaterSummary
from rlhf.feedback.quality.estimates import beta_estimate
from rlhf.feedback.store import Progress
from rlhf.records import Estimate

Answer = dict[str, Any]
Words = Sequence[str | Mapping[str, str]]

FEW_JUDGEMENTS = 10
"""Below so many judgements nothing is said of a rater but that it is early."""

LOW_GOLD = 0.7
LOW_RELIABILITY = 0.65
LOW_CONSISTENCY = 0.7
MUCH_TOO_FAST = 0.2
MUCH_SKIPPED = 0.3
STRONG_BIAS = 0.15
"""How far a share for one side lies from one half, or for the longer from the other raters'."""

# Landis and Koch (1977), for kappa; used for alpha too, which is on the same scale.
_WORDS = ((0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair"))
_TONES = ("good", "warn", "bad")


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """Why a rater may need help, in words; `sure` when the whole interval lies beyond the line."""

    about: str
    words: str
    sure: bool


def agreement_word(value: float) -> str:
    """A chance-corrected agreement in a word: Landis and Koch's, "no" at or below zero."""
    if value <= 0:
        return "no"
    return next((word for least, word in _WORDS if value > least), "slight")


def work_answer(
    report: Mapping[str, Any], ceiling: Estimate | None, raters: Sequence[RaterSummary]
) -> Answer:
    """Whether the work is good: agreement, gold, and how good labels of such raters can be.

    `report` is `agreement_report`'s. Unknown where no two raters judged one item and there is
    no gold.
    """
    scale, alpha = _alpha(report)
    gold = pooled_gold(raters)
    lines = [*_agreement_lines(report, scale, alpha), *_gold_lines(gold), *_ceiling_lines(ceiling)]
    tones = [_tone(alpha["value"], 0.6, 0.4)] if alpha else []
    tones += [_tone(gold.value, 0.8, LOW_GOLD)] if gold else []
    tone = max(tones, key=_TONES.index, default="unknown")
    return _answer("work", "Is the work good?", [_work_headline(alpha, gold)], tone, lines)


def done_answer(progress: Progress, forecast: Forecast) -> Answer:
    """Whether it will be done: what share of the places is filled, and when the rest will be."""
    question = "Will it be done?"
    filled, wanted = progress.num_filled, progress.num_wanted
    if not wanted:
        return _answer("done", question, ["There is nothing to judge yet"], "unknown", [])
    lines = [
        _line(f"{filled:,}", f"of {wanted:,} judgements wanted"),
        _line(f"{progress.num_complete:,}", f"of {progress.num_items:,} items complete"),
    ]
    bar = {"num": filled, "wanted": wanted}
    if filled >= wanted:
        return {**_answer("done", question, ["It is done"], "good", lines), "bar": bar}
    headline: list[Any] = [f"{_share_done(filled / wanted)} done"]
    tone = "unknown" if forecast.finish_median is None else "good"
    if forecast.finish_median is not None:
        headline += [", the rest by about ", time_cell(forecast.finish_median)]
    lines += _finish_lines(forecast)
    return {**_answer("done", question, headline, tone, lines), "bar": bar}


def help_answer(
    raters: Sequence[RaterSummary], *, too_fast_s: float, standings: Mapping[str, str]
) -> Answer:
    """Who needs help: the raters with concerns, the surest first, each with reasons in words.

    Raters who were excluded are not listed; `people` are the rows to link to.
    """
    people: list[dict[str, Any]] = []
    for rater in raters:
        found = concerns(rater, raters, too_fast_s=too_fast_s, standing=standings.get(rater.name))
        if found:
            people.append(
                {
                    "name": rater.name,
                    "simulated": rater.simulated,
                    "sure": any(concern.sure for concern in found),
                    "reasons": [concern.words for concern in found],
                }
            )
    people.sort(key=lambda person: (not person["sure"], -len(person["reasons"])))
    headline, tone = _help_headline(raters, people)
    lines = _help_lines(raters)
    return {**_answer("help", "Who needs help?", [headline], tone, lines), "people": people}


def concerns(
    rater: RaterSummary,
    everyone: Sequence[RaterSummary],
    *,
    too_fast_s: float,
    standing: str | None = None,
) -> list[Concern]:
    """What speaks for looking at a rater's work; nothing while they have judged too little."""
    if rater.weight == 0:
        return []
    found = []
    if standing == "unqualified":
        words = "did not pass the qualification round, so gets no items"
        found.append(Concern(about="qualification", words=words, sure=True))
    if rater.num_judged + rater.num_skipped < FEW_JUDGEMENTS:
        return found
    low = (
        ("gold", rater.gold_accuracy, LOW_GOLD, "answers {} of the gold items as expected"),
        ("reliability", rater.reliability, LOW_RELIABILITY, "reliability estimated at {}"),
        ("consistency", rater.self_consistency, LOW_CONSISTENCY, "repeats {} of own answers"),
    )
    for about, estimate, line, words in low:
        if estimate is not None and estimate.value < line:
            text = words.format(interval_words(estimate))
            found.append(Concern(about=about, words=text, sure=estimate.high < line))
    return [*found, *_pace_concerns(rater, too_fast_s), *_bias_concerns(rater, everyone)]


def pooled_gold(raters: Iterable[RaterSummary]) -> Estimate | None:
    """The share of all gold answers that were as expected, of raters who are not excluded."""
    found = [one.gold_accuracy for one in raters if one.gold_accuracy and one.weight > 0]
    return beta_estimate(sum(one.value * one.n for one in found), sum(one.n for one in found))


def _pace_concerns(rater: RaterSummary, too_fast_s: float) -> list[Concern]:
    found = []
    if rater.too_fast_share is not None and rater.too_fast_share >= MUCH_TOO_FAST:
        words = f"takes under {too_fast_s:g} s for {percent(rater.too_fast_share)} of the answers"
        found.append(Concern(about="pace", words=words, sure=True))
    shown = rater.num_judged + rater.num_skipped
    if shown and rater.num_skipped / shown >= MUCH_SKIPPED:
        words = f"skips {percent(rater.num_skipped / shown)} of the items"
        found.append(Concern(about="skips", words=words, sure=True))
    return found


def _bias_concerns(rater: RaterSummary, everyone: Sequence[RaterSummary]) -> list[Concern]:
    found = []
    side = rater.side_bias
    if side is not None and _is_beyond(side, 0.5):
        first = side.value > 0.5
        words = f"prefers the side shown {'first' if first else 'last'} in "
        words += f"{percent(side.value if first else 1 - side.value)} of decided answers"
        found.append(Concern(about="side", words=words, sure=True))
    length, usual = rater.length_bias, _usual_length_bias(rater, everyone)
    if length is not None and usual is not None and _is_beyond(length, usual):
        longer = length.value > usual
        shares = (length.value, usual) if longer else (1 - length.value, 1 - usual)
        words = f"prefers the {'longer' if longer else 'shorter'} one in {percent(shares[0])} of "
        words += f"decided answers, the others in {percent(shares[1])}"
        found.append(Concern(about="length", words=words, sure=True))
    return found


def _is_beyond(estimate: Estimate, usual: float) -> bool:
    """Whether a share is far from the usual one, and its interval does not hold that one."""
    away = abs(estimate.value - usual) >= STRONG_BIAS
    return away and not estimate.low <= usual <= estimate.high


def _usual_length_bias(rater: RaterSummary, everyone: Sequence[RaterSummary]) -> float | None:
    """How often the other raters prefer the longer one; longer may really be better."""
    others = [one.length_bias for one in everyone if one.name != rater.name and one.length_bias]
    num = sum(one.n for one in others)
    return sum(one.value * one.n for one in others) / num if num else None


def _alpha(report: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """Krippendorff's alpha on the finest scale that the report has a number for."""
    alphas = report.get("krippendorff_alpha") or {}
    for scale in ("ordinal", "interval", "nominal"):
        alpha = alphas.get(scale)
        if alpha and alpha.get("value") is not None:
            return scale, alpha
    return "", None


def _work_headline(alpha: Mapping[str, Any] | None, gold: Estimate | None) -> str:
    if alpha is None:
        return f"{percent(gold.value)} right on gold items" if gold else "Too early to say"
    word = agreement_word(alpha["value"])
    if word == "no":
        return "No agreement between raters beyond chance"
    only = "Only " if word in ("slight", "fair") else ""
    return _capital(f"{only}{word} agreement between raters")


def _agreement_lines(
    report: Mapping[str, Any], scale: str, alpha: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    if alpha is None:
        return [_line(None, "No item has been judged by two raters yet: agreement is not known.")]
    words = f"Krippendorff's alpha, {scale}{_span(alpha['low'], alpha['high'])}: "
    words += _word_span(alpha)
    lines = [_line(f"{alpha['value']:.2f}", words)]
    share, interval = report.get("percent_agreement"), report.get("percent_agreement_ci")
    if share is not None and interval is not None:
        span = f"{percent(interval[0])} to {percent(interval[1])}"
        lines.append(_line(percent(share), f"of the time two raters answer the same ({span})"))
    return lines


def _gold_lines(gold: Estimate | None) -> list[dict[str, Any]]:
    if gold is None:
        return [
            _line(None, "No gold item has been answered: no answer is checked against a known one.")
        ]
    span = f"{percent(gold.low)} to {percent(gold.high)}, n {gold.n:,}"
    return [_line(percent(gold.value), f"of gold items answered as expected ({span})")]


def _ceiling_lines(ceiling: Estimate | None) -> list[dict[str, Any]]:
    if ceiling is None:
        return []
    span = f"{percent(ceiling.low)} to {percent(ceiling.high)}"
    words = f"noise ceiling ({span}): how often labels made of these answers are right"
    return [_line(percent(ceiling.value), words)]


def _finish_lines(forecast: Forecast) -> list[dict[str, Any]]:
    if forecast.finish_low is None or forecast.finish_median is None:
        why = _capital(forecast.reason.rstrip(".") or "the pace is not known yet")
        return [_line(None, f"No forecast. {why}.")]
    end = "and no later day that the pace so far could tell"
    between: list[Any] = [
        "judgements an hour lately: done between ",
        time_cell(forecast.finish_low),
    ]
    between += [" and ", time_cell(forecast.finish_high)] if forecast.finish_high else [f" {end}"]
    return [_line(f"{forecast.pace_per_hour or 0:,.1f}", *between, " (95%)")]


def _help_headline(
    raters: Sequence[RaterSummary], people: Sequence[Mapping[str, Any]]
) -> tuple[str, str]:
    active = [rater for rater in raters if rater.num_judged or rater.num_skipped]
    if not active:
        return "Nobody has judged yet", "unknown"
    if people:
        tone = "bad" if any(person["sure"] for person in people) else "warn"
        return f"{len(people)} of {_count(len(active), 'rater')} may need help", tone
    if all(rater.num_judged + rater.num_skipped < FEW_JUDGEMENTS for rater in active):
        return "Too early to say", "unknown"
    return "Nobody stands out", "good"


def _help_lines(raters: Sequence[RaterSummary]) -> list[dict[str, Any]]:
    early = [r for r in raters if 0 < r.num_judged + r.num_skipped < FEW_JUDGEMENTS]
    out = [rater for rater in raters if rater.weight == 0]
    lines = []
    if early:
        words = f"with fewer than {FEW_JUDGEMENTS} judgements: too early to say"
        lines.append(_line(str(len(early)), words))
    if out:
        lines.append(_line(str(len(out)), "excluded"))
    return lines


def _line(value: str | None, *words: str | Mapping[str, str]) -> dict[str, Any]:
    return {"value": value, "words": list(words)}


def _answer(
    key: str, question: str, headline: Words, tone: str, lines: Sequence[Mapping[str, Any]]
) -> Answer:
    return {
        "key": key,
        "question": question,
        "headline": list(headline),
        "tone": tone,
        "lines": list(lines),
    }


def _tone(value: float, good: float, fair: float) -> str:
    return "good" if value >= good else "warn" if value >= fair else "bad"


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"


def _word_span(alpha: Mapping[str, Any]) -> str:
    """What the number is called, and what its interval's ends are, where those are other words."""
    ends = [alpha[key] for key in ("value", "low", "high") if alpha.get(key) is not None]
    word, *span = ("none" if value <= 0 else agreement_word(value) for value in ends)
    if len(span) < 2 or {*span} == {word}:
        return word
    return f"{word}, its interval {span[0]} to {span[1]}"


def _share_done(share: float) -> str:
    """Never 100% before all is there, never 0% once something is."""
    if 0 < share < 0.01:
        return "Under 1%"
    return f"{min(99, round(100 * share))}%"


def _count(num: int, noun: str) -> str:
    return f"{num} {noun}" if num == 1 else f"{num:,} {noun}s"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
