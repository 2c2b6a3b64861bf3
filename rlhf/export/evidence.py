"""What else is known of a model: labels of its data, gate, win rates, as far as they are of it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf.errors import RlhfError
from rlhf.evaluation.gate.binding import GATE_NAME, reward_sha256
from rlhf.evaluation.policies import fingerprint
from rlhf.export.lineage import Link
from rlhf.manifest import MANIFEST_NAME, Manifest
from rlhf.pipeline.summary import SUMMARY_NAME

_EVALUATION = "evaluate"
_RATINGS = "ratings"


def data_sets(links: list[Link]) -> list[dict[str, Any]]:
    """What each stage of the lineage was trained on: a mapping each, with `stage` and `role`.

    Keys of a manifest's `inputs.data` and `provenance.data`; `agreement` where the ratings stage
    that froze the file lies beside it.
    """
    found = []
    for link in links:
        if link.manifest is None or "data" not in link.manifest.inputs:
            continue
        made = link.manifest
        known = {**made.provenance.get("data", {}), **made.inputs["data"]}
        known |= {"stage": made.stage, "losses": made.provenance.get("losses", {})}
        known["agreement"] = _agreement_of(known)
        found.append(known)
    return found


def win_rates(link: Link) -> dict[str, Any] | None:
    """The pipeline's evaluation of this very model: its row of summary.json, and the judges.

    None when there is none, or when it was of other weights.
    """
    folder = link.folder
    if folder is None:
        return None
    run = folder.absolute().parent
    policies = _json(run / SUMMARY_NAME).get("policies", {})
    evaluation = _manifest(run / _EVALUATION)
    if evaluation is None or not isinstance(policies, dict):
        return None
    name = folder.absolute().name
    measured = evaluation.inputs.get(f"policy {name}", {})
    if name not in policies or measured.get("sha256") != fingerprint(folder.absolute()):
        return None
    judges = evaluation.metrics.get("judges", {})
    return {"name": name, "policy": policies[name], "judges": judges, "evaluation": evaluation}


def gates(links: list[Link]) -> Iterator[dict[str, Any]]:
    """The gate of each reward model of the lineage: `name`, `passed`, `override`, `refused_by`.

    That which a stage recorded when it read the reward model, and of an exported reward model the
    gate beside it, if it is of these weights.
    """
    for link in links:
        made = link.manifest
        if made is None:
            continue
        for source in made.provenance.get("rewards", []):
            if isinstance(source.get("gate"), dict):
                yield {"name": source.get("name"), **source["gate"]}
        if link.role == "model" and made.stage == "reward" and link.folder is not None:
            verdict = _json(link.folder.absolute().parent / "gate" / GATE_NAME)
            if verdict.get("reward", {}).get("sha256") == reward_sha256(link.folder):
                yield {"name": link.folder.name, **verdict}


def _agreement_of(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The agreement of the raters behind a file of judgements, by the stage that froze it."""
    path = Path(str(known.get("path", "")))
    stage = _manifest(path.parent)
    if stage is None or stage.stage != _RATINGS:
        return None
    if stage.outputs.get(path.name) != (known.get("files") or {}).get(path.name):
        return None
    agreement = stage.metrics.get("percent_agreement")
    return agreement if isinstance(agreement, dict) else None


def _manifest(folder: Path) -> Manifest | None:
    if not (folder / MANIFEST_NAME).is_file():
        return None
    try:
        return Manifest.read(folder)
    except RlhfError:
        return None


def _json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; empty when it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
