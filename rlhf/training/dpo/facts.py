"""For the manifest and the report: what the pairs of a DPO run say of their labels."""

from collections.abc import Mapping
from typing import Any

from rlhf.data.cells import TIE
from rlhf.data.columns import Columns


def label_facts(rows: Columns, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The kind of the labels that are trained on, how many are ties, and whether pairs weigh
    differently.

    `rows` are tokenised rows with `LABEL_COLUMNS`; a soft label is one that is neither certain nor
    a tie. `provenance` is the data set's, which says how judgements became labels.
    """
    labels = [row["p_chosen"][0] for row in rows if row.get("p_chosen")]
    weights = [row["weight"] for row in rows if "weight" in row]
    return {
        "labels": "soft" if any(p not in (0.0, TIE, 1.0) for p in labels) else "hard",
        "label_method": provenance.get("label_method"),
        "num_ties": sum(p == TIE for p in labels),
        "weight_range": [min(weights), max(weights)] if weights else None,
        "uses_margin": any(row.get("margin") for row in rows),
    }
