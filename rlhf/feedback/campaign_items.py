"""What a campaign file names to be rated: its completions, its gold and its qualification items."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError, DataError, nearest_hint
from rlhf.feedback.files import read_rows
from rlhf.feedback.gold import PARTS, problem_with_expected
from rlhf.feedback.interchange import values_of
from rlhf.feedback.pairing import PAIRINGS, Pairing, make_comparisons, sample_row, whole_comparison
from rlhf.feedback.protocols import MAX_RANKED, Protocol, problem_with_answer
from rlhf.feedback.rules import check_comparison
from rlhf.records import Comparison, Judgement, TaskType

EXPECTED_KEYS = (*PARTS, "tolerance")

Row = dict[str, Any]
Rows = Sequence[tuple[str, Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeItems:
    """The items to be rated, and what of the rows made none."""

    comparisons: list[Comparison]
    num_identical: int
    num_repeated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckItems:
    """Items whose answer is known: what is expected of each, by its name."""

    comparisons: list[Comparison] = field(default_factory=list)
    expected: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_json(self) -> list[Any]:
        """The same as plain values, for a hash."""
        return [
            [one.item, one.prompt.content, [each.text for each in one.completions],
             self.expected[one.item]]
            for one in self.comparisons
        ]  # fmt: skip


def sourced_rows(source: Any, folder: Path | None, where: str) -> Rows:
    """Rows given as a list, or as the path of a file relative to `folder`; None forbids paths."""
    if isinstance(source, list):
        for number, row in enumerate(source, 1):
            if not isinstance(row, dict):
                raise DataError(f"{where}: row {number}: no object with prompt and completions")
            try:
                json.dumps(row, sort_keys=True, allow_nan=False)
            except (TypeError, ValueError) as error:  # YAML knows dates and more
                raise DataError(f"{where}: row {number}: {error}; put texts in quotes") from None
        return [(f"{where}: row {number}", row) for number, row in enumerate(source, 1)]
    if not isinstance(source, str):
        raise ConfigError(f"{where}: {source!r}: the path of a file, or a list of rows, is needed")
    if folder is None:
        raise ConfigError(f"{where}: {source!r} names a file of the server; give the rows")
    try:
        return list(read_rows(folder / source))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def made_items(
    rows: Rows,
    task: TaskType,
    where: str,
    *,
    pairs: Pairing | None,
    num_per_prompt: int,
    seed: int,
) -> MadeItems:
    """The items that raters get: pairs for a pairwise campaign, else a prompt's completions."""
    if task == "pairwise":
        return _paired(rows, where, pairs, num_per_prompt, seed)
    items: dict[str, Comparison] = {}
    num_repeated = 0
    for place, row in rows:
        comparison = _fitting(whole_comparison(row, place), task, place)
        there = items.setdefault(comparison.item, comparison)
        if there != comparison:
            raise DataError(
                f"{place}: item {comparison.item!a} stands above with other completions; give each "
                "its own name"
            )
        num_repeated += there is not comparison
    return MadeItems(comparisons=list(items.values()), num_identical=0, num_repeated=num_repeated)


def check_items(
    source: Any, folder: Path | None, protocol: Protocol, where: str, key: str
) -> CheckItems:
    """Gold or qualification items with what is expected; DataError where the two do not fit."""
    items = CheckItems()
    if source is None:
        return items
    for place, row in sourced_rows(source, folder, f"{where}: {key}"):
        comparison = _fitting(whole_comparison(row, place), protocol.task, place)
        # the same texts may be among the items to be rated: a gold item is another one
        if row.get("item") is None:
            comparison = replace(comparison, item=f"{key}-{comparison.item}")
        if comparison.item in items.expected:
            raise DataError(f"{place}: item {comparison.item!a} stands above; give each once")
        items.comparisons.append(comparison)
        items.expected[comparison.item] = _expected(row, comparison, protocol, place)
    return items


def _paired(
    rows: Rows, where: str, pairs: Pairing | None, num_per_prompt: int, seed: int
) -> MadeItems:
    for place, row in rows:
        _, completions = sample_row(row, place)
        if len(completions) < 2:
            raise DataError(
                f"{place}: {len(completions)} completions, and a pairwise campaign compares 2; "
                "sample more of them, or leave the row out"
            )
        if len(completions) > 2 and pairs is None:
            raise ConfigError(
                f"{place}: {len(completions)} completions, and {where} does not say which pairs "
                f"to make of them; add `pairs:` ({', '.join(PAIRINGS)})"
            )
    made = make_comparisons(rows, num_per_prompt=num_per_prompt, seed=seed, pairs=pairs or "all")
    if not made.comparisons:
        raise DataError(f"{where}: completions: no prompt has two completions that differ")
    named = [row["item"] for _, row in rows if row.get("item") is not None]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"{where}: completions: item {twice!a} stands twice; give each its own name"
        )
    return MadeItems(
        comparisons=made.comparisons,
        num_identical=made.num_identical,
        num_repeated=made.num_repeated,
    )


def _fitting(comparison: Comparison, task: TaskType, where: str) -> Comparison:
    """The comparison, where raters of `task` can be given it."""
    count = len(comparison.completions)
    try:
        check_comparison(comparison, task)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if task == "ranking" and not 2 <= count <= MAX_RANKED:
        raise DataError(f"{where}: {count} completions, and 2 to {MAX_RANKED} can be ranked")
    return comparison


def _expected(row: Row, comparison: Comparison, protocol: Protocol, where: str) -> dict[str, Any]:
    expected = row.get("expected")
    if not isinstance(expected, Mapping) or not expected:
        raise DataError(f'{where}: no expected values; add `expected`, as in {{"verdict": -2}}')
    for key in expected:
        if key not in EXPECTED_KEYS:
            hint = nearest_hint(str(key), EXPECTED_KEYS)
            raise DataError(f"{where}: expected: unknown key {key!r}{hint}")
    problem = _problem(dict(expected), comparison, protocol)
    if problem is not None:
        raise DataError(f"{where}: expected: {problem}")
    return dict(expected)


def _problem(expected: Row, comparison: Comparison, protocol: Protocol) -> str | None:
    """What makes an expected answer impossible: no rater of this campaign could give it."""
    problem = problem_with_expected(expected, comparison)
    if problem is not None:
        return problem
    try:
        values = values_of(expected)
    except (TypeError, ValueError) as error:
        return str(error)
    judgement = Judgement(
        id="expected",
        campaign="-",
        item=comparison.item,
        annotator="-",
        simulated=False,
        seconds=0,
        created_at=datetime.now(UTC),
        shown_order=tuple(range(len(comparison.completions))),
        rationale="-",
        **values,
    )
    return problem_with_answer(_asked(protocol, values), judgement)


def _asked(protocol: Protocol, values: Mapping[str, Any]) -> Protocol:
    """The protocol as far as an expected answer goes: any part of an answer may be expected."""
    own = {"pairwise": "verdict", "ratings": "ratings"}.get(protocol.task)
    if own is not None and values.get(own) is None:
        return replace(protocol, task="rewrite")
    named = values.get("ratings") or {}
    criteria = tuple(one for one in protocol.criteria if one.name in named)
    return replace(protocol, criteria=criteria)
