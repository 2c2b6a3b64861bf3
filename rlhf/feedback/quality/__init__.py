"""What can be said of a campaign's ratings and of its raters; docs/quality.md explains each.

Simulated raters are marked in every result.
"""

from rlhf.feedback.quality.agreement_report import agreement_report
from rlhf.feedback.quality.campaign import (
    rating_metrics,
    side_share,
    truth_metrics,
    truth_settings,
)
from rlhf.feedback.quality.disagreements import Disagreement, disagreements
from rlhf.feedback.quality.pace import Forecast, agreement_over_time, forecast, throughput
from rlhf.feedback.quality.raters import RaterSummary, rater_table
from rlhf.feedback.quality.reliability import reliability_report

__all__ = [
    "Disagreement",
    "Forecast",
    "RaterSummary",
    "agreement_over_time",
    "agreement_report",
    "disagreements",
    "forecast",
    "rater_table",
    "rating_metrics",
    "reliability_report",
    "side_share",
    "throughput",
    "truth_metrics",
    "truth_settings",
]
