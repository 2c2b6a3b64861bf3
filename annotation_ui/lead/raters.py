"""The raters' table, one rater's work closely, and decisions on whose answers count how much."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from annotation_ui.bodies import Body
from annotation_ui.lead import charts
from annotation_ui.lead.answers_given import answer_figures
from annotation_ui.lead.charts import figure, simulated_words, time_cell
from annotation_ui.lead.findings import concerns
from annotation_ui.lead.item_view import excerpt
from annotation_ui.lead.replies import reply
from annotation_ui.lead.reports import Reports
from annotation_ui.lead.words import words_of
from rlhf.errors import ConfigError
from rlhf.feedback.protocols import Protocol, recorded_protocol
from rlhf.feedback.quality import RaterSummary, rater_table
from rlhf.feedback.quality.checks import share_as_expected
from rlhf.feedback.quality.raters import CHECKS
from rlhf.feedback.rules import is_taken_back
from rlhf.feedback.store import RaterDecision, Store
from rlhf.feedback.votes import last_of_each_rater
from rlhf.records import Comparison, Estimate, Judgement

NUM_HISTORY = 100
_ESTIMATES = (
    "gold_accuracy",
    "self_consistency",
    "agreement",
    "reliability",
    "side_bias",
    "length_bias",
)
_PURPOSES = {"rate": "", "gold": "gold", "qualification": "qualification", "retest": "retest"}


class DecisionBody(Body):
    """What is decided of a rater: 0 excludes, between 0 and 1 weighs less, 1 restores."""

    campaign: str
    annotator: str
    weight: float = Field(ge=0, le=1)
    reason: str = Field(min_length=1, max_length=2000)
    reopen: bool = False


def routes(store: Store, reports: Reports) -> APIRouter:
    """The raters of one campaign: the table, one of them closely, and the decisions."""
    router = APIRouter(prefix="/api/lead/raters")

    @router.get("")
    def get_raters(campaign: str) -> JSONResponse:
        return reply(lambda: raters_view(store, reports, campaign))

    @router.get("/one")
    def get_rater(campaign: str, annotator: str) -> JSONResponse:
        return reply(lambda: rater_view(store, reports, campaign, annotator))

    @router.post("/decide")
    def post_decision(request: Request, body: DecisionBody) -> JSONResponse:
        return reply(lambda: decide(store, reports, body, decided_by=request.state.annotator))

    return router


def raters_view(store: Store, reports: Reports, campaign: str) -> dict[str, Any]:
    """A row for each rater with what may be wrong, and every decision, the newest first."""
    raters = summaries(store, reports, campaign)
    protocol = _protocol(store, campaign)
    decisions = store.rater_decisions(campaign, current_only=False)
    return {
        "raters": [_row(store, campaign, protocol, rater, raters) for rater in raters],
        "decisions": [_decision(one) for one in reversed(decisions)],
        "too_fast_s": protocol.too_fast_s,
    }


def rater_view(store: Store, reports: Reports, campaign: str, annotator: str) -> dict[str, Any]:
    """One rater closely; ConfigError when nothing of theirs is in the campaign."""
    raters = summaries(store, reports, campaign)
    rater = _summary(raters, campaign, annotator)
    protocol = _protocol(store, campaign)
    rows = store.judgements(campaign, annotator=annotator, current_only=False)
    comparisons = {one.item: one for one in store.comparisons(campaign)}
    decisions = store.rater_decisions(campaign, current_only=False)
    return {
        "rater": _row(store, campaign, protocol, rater, raters),
        "figures": _figures(protocol, rater, rows),
        "gold": _gold_rows(store, campaign, protocol, rows, comparisons),
        "history": history_rows(protocol, rows, comparisons),
        "num_history": len(rows),
        "decisions": [_decision(one) for one in reversed(decisions) if one.annotator == annotator],
        "too_fast_s": protocol.too_fast_s,
    }


def _summary(raters: Sequence[RaterSummary], campaign: str, annotator: str) -> RaterSummary:
    for rater in raters:
        if rater.name == annotator:
            return rater
    raise ConfigError(f"{annotator!r} has judged nothing in {campaign!r}")


def decide(
    store: Store, reports: Reports, body: DecisionBody, *, decided_by: str
) -> dict[str, Any]:
    """Record the decision and answer with the rater as they stand now."""
    _summary(summaries(store, reports, body.campaign), body.campaign, body.annotator)
    store.decide_on_rater(
        body.campaign,
        body.annotator,
        weight=body.weight,
        reason=body.reason.strip(),
        decided_by=decided_by,
        reopen=body.reopen,
    )
    reports.forget(body.campaign)
    return rater_view(store, reports, body.campaign, body.annotator)


def summaries(store: Store, reports: Reports, campaign: str) -> Sequence[RaterSummary]:
    """Quality's table of the raters, made once for all who look."""
    found: Sequence[RaterSummary] = reports.get(
        "raters", campaign, lambda: rater_table(store, campaign)
    )
    return found


def history_rows(
    protocol: Protocol, rows: Sequence[Judgement], comparisons: dict[str, Comparison]
) -> list[dict[str, Any]]:
    """A rater's last answers, newest first, with those that were changed or taken back."""
    superseded = {row.supersedes for row in rows if row.supersedes is not None}
    return [
        {
            "id": row.id,
            "item": row.item,
            "prompt": excerpt(comparisons[row.item].prompt),
            "created_at": row.created_at.isoformat(),
            "seconds": round(row.seconds, 1),
            "words": words_of(row, protocol),
            "rationale": row.rationale,
            "purpose": _PURPOSES.get(row.purpose, row.purpose),
            "standing": _standing(row, row.id in superseded),
        }
        for row in reversed(rows[-NUM_HISTORY:])
    ]


def _gold_rows(
    store: Store,
    campaign: str,
    protocol: Protocol,
    rows: Sequence[Judgement],
    comparisons: dict[str, Comparison],
) -> list[dict[str, Any]]:
    """What the rater answered where the answer is known, newest first; `share` is right so far."""
    gold = store.gold(campaign)
    checked = last_of_each_rater(row for row in rows if row.purpose in CHECKS and row.item in gold)
    return [
        {
            "item": row.item,
            "prompt": excerpt(comparisons[row.item].prompt),
            "purpose": row.purpose,
            "expected": expected_words(row, gold[row.item], protocol),
            "answered": words_of(row, protocol),
            "share": share_as_expected(row, gold[row.item]),
            "created_at": row.created_at.isoformat(),
        }
        for row in reversed(checked)
    ]


def expected_words(row: Judgement, expected: Mapping[str, Any], protocol: Protocol) -> str:
    """What was expected, in the words of answers; of a verdict only its side counts."""
    verdict = expected.get("verdict")
    if verdict is not None:
        return "About the same" if verdict == 0 else f"{1 if verdict < 0 else 2} is better"
    wanted = replace(
        row,
        verdict=None,
        skip=None,
        rewrite=None,
        ranking=expected.get("ranking"),
        ratings=expected.get("ratings"),
        flags=expected.get("flags"),
    )
    return words_of(wanted, protocol)


def _standing(row: Judgement, is_superseded: bool) -> str:
    if is_superseded:
        return "changed since"
    return "taken back" if is_taken_back(row) else ""


def _row(
    store: Store,
    campaign: str,
    protocol: Protocol,
    rater: RaterSummary,
    everyone: Sequence[RaterSummary],
) -> dict[str, Any]:
    standing = store.standing_of(campaign, rater.name)
    found = concerns(rater, everyone, too_fast_s=protocol.too_fast_s, standing=standing)
    return {
        "name": rater.name,
        "simulated": rater.simulated,
        "weight": rater.weight,
        "standing": standing,
        "num_judged": rater.num_judged,
        "num_skipped": rater.num_skipped,
        "num_gold": rater.num_gold,
        **{name: _estimate(getattr(rater, name)) for name in _ESTIMATES},
        "median_seconds": rater.median_seconds,
        "too_fast_share": rater.too_fast_share,
        "last_at": None if rater.last_at is None else rater.last_at.isoformat(),
        "concerns": [{"about": one.about, "words": one.words, "sure": one.sure} for one in found],
    }


def _estimate(estimate: Estimate | None) -> dict[str, float | int] | None:
    if estimate is None:
        return None
    return {
        "value": round(estimate.value, 4),
        "low": round(estimate.low, 4),
        "high": round(estimate.high, 4),
        "n": estimate.n,
    }


def _decision(decision: RaterDecision) -> dict[str, Any]:
    return {
        "annotator": decision.annotator,
        "weight": decision.weight,
        "reason": decision.reason,
        "reopen": decision.reopen,
        "decided_by": decision.decided_by,
        "created_at": decision.created_at.isoformat(),
    }


def _figures(
    protocol: Protocol, rater: RaterSummary, rows: Sequence[Judgement]
) -> list[dict[str, Any]]:
    superseded = {row.supersedes for row in rows}
    current = [row for row in rows if row.id not in superseded and not is_taken_back(row)]
    rated = [row for row in current if row.purpose == "rate"]
    made = [pace_figure(protocol, current), *answer_figures(protocol, rated)]
    return [{**each, "simulated": simulated_words([rater.simulated])} for each in made]


def pace_figure(protocol: Protocol, rows: Sequence[Judgement]) -> dict[str, Any]:
    """How long each answer took, over time, with the line under which it is too fast."""
    title = "Pace"
    answered = [row for row in rows if row.skip is None]
    if not answered:
        return figure("pace", title, caption="No answer yet.")
    points = [
        {"at": r.created_at.isoformat(), "seconds": r.seconds, "words": words_of(r, protocol)[:80]}
        for r in answered
    ]
    line = f"{protocol.too_fast_s:g} s"
    num_fast = sum(row.seconds < protocol.too_fast_s for row in answered)
    return figure(
        "pace",
        title,
        spec=charts.seconds_over_time(points, too_fast_s=protocol.too_fast_s),
        note=f"Seconds for each answer; below the dashed rule ({line}) is too fast.",
        caption=f"{len(answered):,} answers, {num_fast:,} of them in under {line}.",
        columns=["when", "seconds"],
        rows=[[time_cell(r.created_at), f"{r.seconds:.1f}"] for r in answered[-NUM_HISTORY:]],
    )


def _protocol(store: Store, campaign: str) -> Protocol:
    found = store.campaign(campaign)
    return recorded_protocol(found.task, found.settings)
