"""What a stage would lose of its data, and what it should be warned of, before it trains."""

from rlhf.data.doctor.examination import Side, examine
from rlhf.data.doctor.findings import Finding, by_severity, finding_lines, findings_as_dicts

__all__ = ["Finding", "Side", "by_severity", "examine", "finding_lines", "findings_as_dicts"]
