"""The overview: three questions answered in words with numbers, and the charts behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from annotation_ui.lead.answers_given import answer_figures
from annotation_ui.lead.charts import simulated_words
from annotation_ui.lead.figures import (
    agreement_figure,
    filled_over_time,
    progress_figure,
    reliability_figure,
    throughput_figure,
)
from annotation_ui.lead.findings import done_answer, help_answer, work_answer
from annotation_ui.lead.replies import reply
from annotation_ui.lead.reports import Reports
from rlhf.errors import DataError
from rlhf.feedback.agreement import noise_ceiling_estimate, signs_by_pair
from rlhf.feedback.evidence import Evidence, read_evidence
from rlhf.feedback.protocols import Protocol, recorded_protocol
from rlhf.feedback.quality import (
    Forecast,
    RaterSummary,
    agreement_over_time,
    throughput,
)
from rlhf.feedback.quality.agreement_report import report_on
from rlhf.feedback.quality.pace import forecast_of
from rlhf.feedback.quality.raters import summaries
from rlhf.feedback.store import Campaign, Progress, Store
from rlhf.feedback.votes import ordinary


def routes(store: Store, reports: Reports) -> APIRouter:
    """The overview of one campaign; what it rests on is worked out at most every few seconds."""
    router = APIRouter(prefix="/api/lead/overview")

    @router.get("")
    def get_overview(campaign: str) -> JSONResponse:
        def made_once() -> dict[str, Any]:
            return _aged(
                reports.get("overview", campaign, lambda: overview(store, reports, campaign))
            )

        return reply(made_once)

    return router


def overview(
    store: Store, reports: Reports, name: str, *, now: datetime | None = None
) -> dict[str, Any]:
    """The three answers, the charts, and how much of it is simulated, as JSON.

    Without a single answer there are only counts.
    """
    now = now or datetime.now(UTC)
    evidence = read_evidence(store, name)
    rated = ordinary(evidence.judgements)
    answered = [row for row in rated if row.skip is None]
    counts = {
        "campaign": name,
        "made_at": now.isoformat(),
        "num_items": len(evidence.comparisons) - len(evidence.gold),
        "num_answers": len(answered),
        "num_simulated": sum(row.simulated for row in answered),
    }
    if not answered:
        return {**counts, "answers": [], "figures": []}
    campaign, progress = store.campaign(name), store.progress(name)
    times = sorted(row.created_at for row in answered)
    view = _View(
        store=store,
        campaign=campaign,
        progress=progress,
        evidence=evidence,
        raters=reports.get("raters", name, lambda: rater_table_of(evidence, campaign)),
        expected=forecast_of(times, max(0, progress.num_wanted - progress.num_filled), now),
        now=now,
    )
    return {**counts, "answers": _answers(view), "figures": _figures(view)}


def _aged(report: dict[str, Any]) -> dict[str, Any]:
    """With how old it is: the browser's clock may be another than ours."""
    age = datetime.now(UTC) - datetime.fromisoformat(report["made_at"])
    return {**report, "age_s": age.total_seconds()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What one overview is made of, read once."""

    store: Store
    campaign: Campaign
    progress: Progress
    evidence: Evidence
    raters: Sequence[RaterSummary]
    expected: Forecast
    now: datetime

    @property
    def protocol(self) -> Protocol:
        return recorded_protocol(self.campaign.task, self.campaign.settings)


def _answers(view: _View) -> list[dict[str, Any]]:
    name = view.campaign.name
    ceiling = noise_ceiling_estimate(signs_by_pair(view.evidence.counted).values())
    standings = {rater.name: view.store.standing_of(name, rater.name) for rater in view.raters}
    report = agreement_of(view.evidence, name, where=view.store.location)
    return [
        work_answer(report, ceiling, view.raters),
        done_answer(view.progress, view.expected),
        help_answer(view.raters, too_fast_s=view.protocol.too_fast_s, standings=standings),
    ]


def rater_table_of(evidence: Evidence, campaign: Campaign) -> list[RaterSummary]:
    """Quality's table of the raters, of evidence at hand."""
    protocol = recorded_protocol(campaign.task, campaign.settings)
    return summaries(evidence, too_fast_s=protocol.too_fast_s)


def agreement_of(evidence: Evidence, campaign: str, *, where: str) -> dict[str, Any]:
    """Quality's agreement report, empty where nothing was judged that raters could agree on."""
    try:
        return report_on(evidence, campaign, where=where)
    except DataError:
        return {}


def _figures(view: _View) -> list[dict[str, Any]]:
    store, name, rated = view.store, view.campaign.name, ordinary(view.evidence.judgements)
    mark = simulated_words(row.simulated for row in rated)
    made = [
        progress_figure(view.progress, steps_of(view), view.expected, view.now),
        throughput_figure(throughput(store, name, view.now)),
        agreement_figure(agreement_over_time(store, name)),
        reliability_figure(view.raters),
        *answer_figures(view.protocol, rated),
    ]
    return [{**each, "simulated": mark} for each in made]


def steps_of(view: _View) -> list[tuple[datetime, int]]:
    """When how many places were filled; raters whose places were given to others fill none."""
    decisions = view.store.rater_decisions(view.campaign.name)
    replaced = {decision.annotator for decision in decisions if decision.reopen}
    rated = ordinary(view.evidence.judgements)
    filling = [row for row in rated if row.annotator not in replaced]
    return filled_over_time(filling, view.campaign.overlap)
