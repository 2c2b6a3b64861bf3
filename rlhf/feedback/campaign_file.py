"""A campaign out of a YAML file: what is asked, of which completions, checked by which gold items.

Everything is read and checked before anything is written, and written in one transaction.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config import parse_yaml, read_yaml
from rlhf.errors import ConfigError, DataError
from rlhf.feedback.campaign_items import (
    CheckItems,
    MadeItems,
    check_items,
    made_items,
    sourced_rows,
)
from rlhf.feedback.campaign_keys import KEYS, check_values, over_template, read_protocol
from rlhf.feedback.protocols import PROTOCOL_KEYS, Protocol
from rlhf.feedback.sampling import check_sample, sampled_rows
from rlhf.feedback.store import Campaign, Store
from rlhf.feedback.templates import template_names, template_text
from rlhf.records import Comparison, Purpose, content_hash

__all__ = [
    "KEYS",
    "CampaignPlan",
    "CreatedCampaign",
    "create_campaign",
    "create_campaign_from_text",
    "plan_campaign",
    "plan_campaign_from_text",
    "planned_items",
    "template_names",
    "template_text",
]

MADE_FROM = "made_from"
"""Where a campaign's settings keep the hash of the file that it was made from."""

Rows = Sequence[tuple[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignPlan:
    """A campaign that was read and checked, and is not made yet.

    `values` are the file's keys over its template's; `where` names the file in errors; paths in
    it are relative to `folder`, and where that is None there are none.
    """

    where: str
    folder: Path | None
    values: Mapping[str, Any]
    protocol: Protocol
    name: str
    guideline: str
    settings: dict[str, Any]
    rows: Rows | None
    gold: CheckItems
    qualification: CheckItems


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedCampaign:
    """What was made, or found again (`new` false) when the same file had made it before.

    Left out were `num_identical` pairs whose completions say the same, and `num_repeated` rows
    that are there already.
    """

    campaign: Campaign
    num_items: int
    num_gold: int
    num_qualification: int
    num_identical: int = 0
    num_repeated: int = 0
    new: bool = True


def plan_campaign(
    path: Path, *, completions: Path | None = None, name: str | None = None
) -> CampaignPlan:
    """The campaign in a YAML file; `completions` and `name` override its own.

    Raises ConfigError or DataError naming file and key (or line) for the first thing wrong.
    """
    values = read_yaml(path)
    rows = None if completions is None else sourced_rows(str(completions), Path(), str(path))
    return _plan(values, str(path), path.parent, rows, name)


def create_campaign(store: Store, plan: CampaignPlan) -> CreatedCampaign:
    """Make a planned campaign, whole or not at all; sampling, where it asks for that, comes first.

    The same plan again changes nothing; ConfigError names the key in which a campaign that is
    there under its name differs.
    """
    there = {campaign.name: campaign for campaign in store.campaigns()}.get(plan.name)
    if there is not None and there.settings.get(MADE_FROM) == plan.settings[MADE_FROM]:
        return _found(store, there)
    if there is not None:
        _refuse_difference(plan, there)
    rows = plan.rows
    if rows is None:
        rows = sampled_rows(plan.values["sample"], plan.folder or Path())
    made = planned_items(plan, rows)
    _refuse_shared_names(plan, made.comparisons)
    with store.atomically():
        campaign = _write(store, plan, made.comparisons)
    return CreatedCampaign(
        campaign=campaign,
        num_items=len(made.comparisons),
        num_gold=len(plan.gold.comparisons),
        num_qualification=len(plan.qualification.comparisons),
        num_identical=made.num_identical,
        num_repeated=made.num_repeated,
    )


def create_campaign_from_text(
    store: Store,
    text: str,
    rows: Sequence[dict[str, Any]] | None = None,
    *,
    name: str | None = None,
) -> CreatedCampaign:
    """Make a campaign of a YAML text and rows of completions, as a page of a browser has them.

    A text may name no file of the server: completions, gold and qualification items stand in it
    as lists, or come as `rows`. Prompts that are to be sampled stand in it as `sample.prompts`;
    the call then takes as long as the models do.
    """
    return create_campaign(store, plan_campaign_from_text(text, rows, name=name))


def plan_campaign_from_text(
    text: str, rows: Sequence[dict[str, Any]] | None = None, *, name: str | None = None
) -> CampaignPlan:
    """The campaign in a YAML text and rows of completions, read and checked, nothing written."""
    where = "the campaign"
    numbered = None
    if rows is not None:
        numbered = [(f"completions: row {number}", row) for number, row in enumerate(rows, 1)]
    return _plan(parse_yaml(text, where), where, None, numbered, name)


def planned_items(plan: CampaignPlan, rows: Rows) -> MadeItems:
    """The items to be rated that a plan makes of rows of completions (its own, or sampled)."""
    return made_items(
        rows,
        plan.protocol.task,
        plan.where,
        pairs=plan.values.get("pairs"),
        num_per_prompt=plan.values.get("num_comparisons_per_prompt", 2),
        seed=plan.values.get("seed", 0),
    )


def _plan(
    given: dict[str, Any],
    where: str,
    folder: Path | None,
    rows: Rows | None,
    name: str | None,
) -> CampaignPlan:
    values = over_template(given, where)
    if values.get("rationale") is False:
        values["rationale"] = "off"  # YAML reads a bare `off` as false
    if name is not None:
        values["name"] = name
    check_values(values, where)
    protocol, settings = read_protocol(values, where)
    rows = _completions(values, where, folder, rows)
    guideline = _guideline(values, where, folder)
    gold = check_items(values.get("gold"), folder, protocol, where, "gold")
    qualification = check_items(
        values.get("qualification"), folder, protocol, where, "qualification"
    )
    if gold.comparisons and not protocol.gold_share:
        raise ConfigError(
            f"{where}: gold: no rater would ever see these items; set gold_share (0.05, say)"
        )
    settings[MADE_FROM] = content_hash(
        [
            _without_paths(values),
            guideline,
            rows and [row for _, row in rows],
            gold.as_json(),
            qualification.as_json(),
        ]
    )
    return CampaignPlan(
        where=where,
        folder=folder,
        values=values,
        protocol=protocol,
        name=values["name"],
        guideline=guideline,
        settings=settings,
        rows=rows,
        gold=gold,
        qualification=qualification,
    )


def _completions(
    values: Mapping[str, Any], where: str, folder: Path | None, rows: Rows | None
) -> Rows | None:
    """The rows of completions; None where they are to be sampled."""
    if rows is None and "completions" in values:
        rows = sourced_rows(values["completions"], folder, f"{where}: completions")
    elif rows is None and "sample" not in values:
        raise ConfigError(
            f"{where}: no completions; give a file of them (completions, --completions), or "
            "models to sample from (sample)"
        )
    if "sample" in values:
        if "completions" in values:
            raise ConfigError(f"{where}: completions and sample: give one of them")
        check_sample(values["sample"], where, paths=folder is not None)
    if rows is not None and not rows:
        raise DataError(f"{where}: completions: no rows in it; give at least one prompt")
    return rows


def _guideline(values: Mapping[str, Any], where: str, folder: Path | None) -> str:
    if "guideline_file" not in values:
        return str(values.get("guideline", ""))
    if "guideline" in values:
        raise ConfigError(f"{where}: guideline and guideline_file: give one of them")
    if folder is None:
        raise ConfigError(f"{where}: guideline_file names a file of the server; give the guideline")
    path = folder / str(values["guideline_file"])
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{where}: guideline_file: {path}: {reason}") from None


def _without_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says itself; what lies in other files is hashed by its content."""
    elsewhere = ("completions", "gold", "qualification", "guideline", "guideline_file")
    kept = {key: value for key, value in values.items() if key not in elsewhere}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain


def _refuse_difference(plan: CampaignPlan, there: Campaign) -> None:
    """Say in which key a campaign of this name differs from the file."""
    wanted = {
        "task": plan.protocol.task,
        "overlap": plan.values.get("overlap", 1),
        "lease_s": float(plan.values.get("lease_s", 1800)),
        "seed": plan.values.get("seed", 0),
        "guideline": plan.guideline,
    }
    differing = [key for key, value in wanted.items() if getattr(there, key) != value]
    differing += [
        key
        for key in (*PROTOCOL_KEYS, "template")
        if there.settings.get(key) != plan.settings.get(key)
    ]
    key = differing[0] if differing else "completions, gold or qualification"
    raise ConfigError(
        f"{plan.where}: campaign {plan.name!r} is there with another {key}; give this one another "
        "name, or change that one in the lead's pages"
    )


def _refuse_shared_names(plan: CampaignPlan, comparisons: Sequence[Comparison]) -> None:
    """No item may be of two purposes."""
    seen: dict[str, str] = {}
    for key, batch in (
        ("completions", comparisons),
        ("gold", plan.gold.comparisons),
        ("qualification", plan.qualification.comparisons),
    ):
        for comparison in batch:
            other = seen.setdefault(comparison.item, key)
            if other != key:
                raise DataError(
                    f"{plan.where}: {key}: item {comparison.item!a} is among the {other}, too; "
                    "keep them apart"
                )


def _write(store: Store, plan: CampaignPlan, comparisons: Sequence[Comparison]) -> Campaign:
    campaign = store.create_campaign(
        plan.name,
        task=plan.protocol.task,
        overlap=plan.values.get("overlap", 1),
        lease_s=plan.values.get("lease_s", 1800),
        guideline=plan.guideline,
        settings=plan.settings,
        seed=plan.values.get("seed", 0),
    )
    store.add_comparisons(plan.name, comparisons)
    checked: list[tuple[Purpose, CheckItems]] = [
        ("gold", plan.gold),
        ("qualification", plan.qualification),
    ]
    for purpose, checks in checked:
        if checks.comparisons:
            store.add_comparisons(
                plan.name, checks.comparisons, purpose=purpose, gold=checks.expected
            )
    return campaign


def _found(store: Store, campaign: Campaign) -> CreatedCampaign:
    purposes = list(store.purposes(campaign.name).values())
    return CreatedCampaign(
        campaign=campaign,
        num_items=purposes.count("rate"),
        num_gold=purposes.count("gold"),
        num_qualification=purposes.count("qualification"),
        new=False,
    )
