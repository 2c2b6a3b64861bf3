"""Label Studio's JSON export as judgements: one for each annotation of a task.

Results of the types pairwise, rating, number, choices, ranker and textarea are read.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf.errors import DataError
from rlhf.feedback.foreign.reading import ForeignOptions, Row, Rows, Said, Shown, shown_of

_UNSORTED = "_"


def task(where: str, row: Row, options: ForeignOptions) -> Rows:
    """The judgements in a task; a cancelled annotation is a skip."""
    shown = shown_of(row["data"], where, options)
    item = None if row.get("id") is None else f"task-{row['id']}"
    made = Rows()
    if options.unrated:
        made.rows.append(shown.row(item))
        return made
    for annotation in row["annotations"]:
        values = _values(annotation, shown, where, options)
        if not values:
            made.left_out["annotations without a result"] += 1
            continue
        user = options.user_names.get(_user_key(annotation.get("completed_by")))
        made.rows.append(
            shown.row(item)
            | _origin(annotation)
            | {"annotator": options.named(user, where), "simulated": options.simulated}
            | values
        )
    if not row["annotations"]:
        made.left_out["tasks without an annotation"] += 1
    return _superseding(made)


def with_names(rows: Sequence[tuple[str, Row]], options: ForeignOptions) -> ForeignOptions:
    """The options with a name for each user of the file; two of one name are told apart."""
    users: dict[str, str | None] = {}
    for _, row in rows:
        for annotation in row.get("annotations") or ():
            user = annotation.get("completed_by")
            users[_user_key(user)] = _user_name(user)
    by_name = defaultdict(list)
    for key, name in users.items():
        by_name[name].append(key)
    names = {
        key: name if len(by_name[name]) == 1 else f"{name} ({key})"
        for key, name in users.items()
        if name is not None
    }
    return replace(options, user_names=names)


def _user_key(user: Any) -> str:
    return str(user.get("id")) if isinstance(user, Mapping) else str(user)


def _user_name(user: Any) -> str | None:
    """What a user is called: e-mail, user name or full name, or the number that there is."""
    if user is None:
        return None
    if not isinstance(user, Mapping):
        return f"user-{user}" if isinstance(user, int) else str(user)
    full = " ".join(str(user[key]) for key in ("first_name", "last_name") if user.get(key))
    name = user.get("email") or user.get("username") or full
    return str(name) if name else (f"user-{user['id']}" if user.get("id") is not None else None)


def _origin(annotation: Mapping[str, Any]) -> Row:
    """What an annotation says of itself: its identity, time and duration."""
    row: Row = {"seconds": float(annotation.get("lead_time") or 0)}
    if annotation.get("id") is not None:
        row["id"] = f"label-studio-{annotation['id']}"
    if annotation.get("created_at"):
        row["created_at"] = annotation["created_at"]
    return row


def _values(
    annotation: Mapping[str, Any], shown: Shown, where: str, options: ForeignOptions
) -> Row:
    if annotation.get("was_cancelled"):
        return {"skip": "cancelled"}
    said = Said(shown, where, options)
    for result in annotation.get("result") or ():
        _take(said, shown, result, where)
    return said.row()


def _take(said: Said, shown: Shown, result: Mapping[str, Any], where: str) -> None:
    kind, name, value = result["type"], result["from_name"], result["value"]
    question = _question(name, result.get("to_name"), shown)
    if kind == "pairwise":
        said.take(name, value["selected"], "verdict")
    elif kind in ("rating", "number"):
        said.take(question, value[kind], "rating")
    elif kind == "choices":
        chosen = value["choices"]
        one_word = len(chosen) == 1 and len(shown.texts) == 2 and question == name
        said.take(question, chosen[0] if one_word else chosen, None if one_word else "flag")
    elif kind == "ranker":
        _take_ranker(said, name, value["ranker"], where)
    elif kind == "textarea":
        text = value["text"]
        said.take(name, "\n".join(text) if isinstance(text, list) else text)
    else:
        raise DataError(
            f"{where}: a result of type {kind!a}; pairwise, rating, number, choices, ranker and "
            "textarea are read"
        )


def _question(name: str, to_name: Any, shown: Shown) -> str:
    """A question with the completion that it is asked of, where the tag names one."""
    place = None if to_name is None else shown.place(to_name)
    if place is None or len(shown.texts) == 1:
        return name
    if str(to_name) in name or shown.names[place] in name:
        return name
    return f"{name}-{shown.names[place]}"


def _take_ranker(said: Said, name: str, ranker: Any, where: str) -> None:
    """One sorted list is a ranking, what was left unsorted shares the last rank; several buckets
    are kinds, hence flags."""
    if isinstance(ranker, list):
        said.take(name, ranker, "ranking")
        return
    buckets = {bucket: ids for bucket, ids in ranker.items() if bucket != _UNSORTED}
    unsorted = ranker.get(_UNSORTED) or []
    if not buckets:
        said.take(name, unsorted, "ranking")
    elif len(buckets) == 1:
        (ids,) = buckets.values()
        ranks = [{"value": one, "rank": number} for number, one in enumerate(ids, 1)]
        last = [{"value": one, "rank": len(ids) + 1} for one in unsorted]
        said.take(name, ranks + last, "ranking")
    else:
        for bucket, ids in buckets.items():
            for one in ids:
                said.flag_of(one, bucket)


def _superseding(made: Rows) -> Rows:
    """A later annotation of a task by the same user takes the place of the earlier one."""
    last: dict[str, Row] = {}
    for row in sorted(made.rows, key=lambda one: str(one.get("created_at", ""))):
        earlier = last.get(row["annotator"])
        if earlier is not None and "id" in earlier:
            row["supersedes"] = earlier["id"]
            made.left_out["annotations that a later one of the same user replaced"] += 1
        last[row["annotator"]] = row
    return made
