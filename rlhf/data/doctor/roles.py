"""Whether the turns of a conversation come from whom, and in the order, that templates expect."""

from collections.abc import Sequence

from rlhf.data.doctor.findings import Tally
from rlhf.data.doctor.texts import Row, turns_of
from rlhf.data.formats import Demo
from rlhf.records import Message

ROLES = ("system", "user", "assistant")


def find_wrong_roles(rows: Sequence[Row], tally: Tally) -> None:
    """Count rows by what is wrong with their turns; plain text has none."""
    for row in rows:
        turns = turns_of(row)
        if not turns:
            continue
        for name, turn in _problems(turns):
            tally.add(name, row.place, f"{turn['role']}: {turn['content']}")
        is_whole = isinstance(row, Demo) and row.messages is not None
        if not is_whole and turns[-1]["role"] == "assistant":
            tally.add("prompt_ends_with_assistant", row.place, turns[-1]["content"])


def _problems(turns: Sequence[Message]) -> list[tuple[str, Message]]:
    """Each kind of problem once, with the first turn that has it."""
    found: dict[str, Message] = {}
    for index, turn in enumerate(turns):
        role = turn["role"]
        if role not in ROLES:
            found.setdefault("unknown_roles", turn)
        elif index and role == turns[index - 1]["role"]:
            found.setdefault("repeated_roles", turn)
        if role == "system" and index:
            found.setdefault("late_system", turn)
        if not turn["content"].strip() and index < len(turns) - 1:
            found.setdefault("empty_turns", turn)
    return list(found.items())
