"""Argilla's records as judgements: one for each user who answered one.

Four shapes of export are read: `to_json` of version 2 (answers under `responses`, by question),
the same flattened (`QUESTION.responses` and `QUESTION.responses.users`), version 1 (answers under
`responses`, by user), and version 1 as a data set (answers in a column for each question).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf.feedback.foreign.reading import ForeignOptions, Row, Rows, Said, shown_of
from rlhf.records import content_hash

_ANSWERS = ".responses"
_NOT_GIVEN = ("draft", "pending")
Answer = tuple[str | None, str | None, str, Any]  # user, status, question, value


def is_record(row: Row) -> bool:
    """Whether a row is one of Argilla's records."""
    nested = isinstance(row.get("fields"), Mapping) and "responses" in row
    flat = any(key.endswith(_ANSWERS) or _column(value) for key, value in row.items())
    return nested or flat


def record(where: str, row: Row, options: ForeignOptions) -> Rows:
    """The judgements in a record; drafts are left out, what a user discarded is a skip."""
    shown = shown_of(_fields(row), where, options)
    name = row.get("id") or row.get("external_id") or row.get("_server_id")
    item = None if name is None else f"argilla-{name}"
    made = Rows()
    if options.unrated:
        made.rows.append(shown.row(item))
        return made
    for number, (user, status, answers) in enumerate(_sheets(_answers(row), options, where)):
        if status in _NOT_GIVEN:
            made.left_out[f"{status} answers"] += 1
            continue
        said = Said(shown, where, options)
        for question, value in answers.items() if status != "discarded" else ():
            said.take(question, value)
        values = {"skip": "discarded"} if status == "discarded" else said.row()
        if not values:
            made.left_out["answers without a value"] += 1
            continue
        made.rows.append(_judgement(shown.row(item), user, values, options, number))
    if not made.rows and not made.left_out:
        made.left_out["records without an answer"] += 1
    return _superseding(made)


def _fields(row: Row) -> Mapping[str, Any]:
    if isinstance(row.get("fields"), Mapping):
        fields: Mapping[str, Any] = row["fields"]
        return fields
    return {key: value for key, value in row.items() if "." not in key and key not in ("id",)}


def _answers(row: Row) -> Iterator[Answer]:
    """Every answer in a record, whatever the shape."""
    responses = row.get("responses")
    if isinstance(responses, Mapping):
        for question, given in responses.items():
            for one in given or ():
                yield _user(one.get("user_id")), one.get("status"), question, one["value"]
    elif isinstance(responses, list):
        for one in responses:
            values = one.get("values") or {}
            for question, value in values.items():
                yield _user(one.get("user_id")), one.get("status"), question, value["value"]
            if not values:
                yield _user(one.get("user_id")), one.get("status"), "", None
    for question, given in row.items():
        for one in _column(given):
            yield _user(one["user_id"]), one.get("status"), question, one["value"]
    for key in [key for key in row if key.endswith(_ANSWERS)]:
        values = row[key] or []
        users = row.get(f"{key}.users") or [None] * len(values)
        states = row.get(f"{key}.status") or [None] * len(values)
        for user, status, value in zip(users, states, values, strict=True):
            yield _user(user), status, key.removesuffix(_ANSWERS), value


def _column(value: Any) -> list[Mapping[str, Any]]:
    """The answers in a column of a data set: objects, or one object of lists; else none."""
    if isinstance(value, Mapping) and value.keys() >= {"user_id", "value"}:
        lists = {name: cells for name, cells in value.items() if isinstance(cells, list)}
        if lists.keys() >= {"user_id", "value"} and len(set(map(len, lists.values()))) == 1:
            cells = zip(*lists.values(), strict=True)
            return [dict(zip(lists, cell, strict=True)) for cell in cells]
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        return [one for one in value if one.keys() >= {"user_id", "value"}]
    return []


def _user(value: Any) -> str | None:
    """A user's id as a name; `"None"` is what Argilla writes for nobody."""
    return None if value in (None, "", "None") else str(value)


def _sheets(
    answers: Iterator[Answer], options: ForeignOptions, where: str
) -> list[tuple[str, str | None, dict[str, Any]]]:
    """The answers of each user together; a second answer to a question begins a second sheet."""
    sheets: list[tuple[str, str | None, dict[str, Any]]] = []
    for user, status, question, value in answers:
        name = options.named(user, where)
        sheet = next(
            (one for one in sheets if one[:2] == (name, status) and question not in one[2]), None
        )
        if sheet is None:
            sheet = (name, status, {})
            sheets.append(sheet)
        if value is not None:
            sheet[2][question] = value
    return sheets


def _judgement(row: Row, user: str, values: Row, options: ForeignOptions, number: int) -> Row:
    identity = content_hash([row, user, values, number])
    said = {"id": f"argilla-{identity[:32]}", "annotator": user, "simulated": options.simulated}
    return row | said | values


def _superseding(made: Rows) -> Rows:
    """A later answer of a user to the same record takes the place of the earlier one."""
    last: dict[str, str] = {}
    for row in made.rows:
        if row["annotator"] in last:
            row["supersedes"] = last[row["annotator"]]
            made.left_out["answers that a later one of the same user replaced"] += 1
        last[row["annotator"]] = row["id"]
    return made
