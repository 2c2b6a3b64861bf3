"""Rows that come twice, within the training rows or across the split: exactly, or nearly."""

from collections.abc import Sequence

from rlhf.data.doctor.findings import Tally
from rlhf.data.doctor.near import NearDuplicates, sampled
from rlhf.data.doctor.texts import Row, completions_of, key_of, prompt_text, texts_of
from rlhf.data.formats import Pair, Unpaired


def find_duplicates(rows: Sequence[Row], tally: Tally) -> None:
    """Rows whose texts were there before (normalised), and those that contradict an earlier one."""
    seen: set[bytes] = set()
    for row in rows:
        texts = texts_of(row)
        key = key_of(*texts) + _label_of(row)
        if isinstance(row, Unpaired) and key_of(*texts) + _label_of(row, turned=True) in seen:
            tally.add("contradicting_labels", row.place, texts[0])
        elif key in seen:
            tally.add("duplicate_rows", row.place, texts[0])
        elif isinstance(row, Pair) and _turned(row) in seen:
            tally.add("contradicting_pairs", row.place, texts[0])
        seen.add(key)


def find_near_duplicates(rows: Sequence[Row], tally: Tally) -> int:
    """Rows that nearly are an earlier one (exact ones aside); returns how many were compared."""
    exact: set[bytes] = set()
    near = NearDuplicates()
    compared = sampled(rows, lambda row: row.place)
    for row in compared:
        texts = texts_of(row)
        key = key_of(*texts)
        if key in exact:
            continue
        exact.add(key)
        if near.find_or_add("\n".join(texts)):
            tally.add("near_duplicates", row.place, texts[0])
    return len(compared)


def find_leaks(train: Sequence[Row], heldout: Sequence[Row], tally: Tally) -> int:
    """Held-out rows whose prompt is trained on, exactly or nearly; returns how many training
    rows the near ones were sought among.
    """
    prompts = {key_of(prompt_text(row.prompt)) for row in train}
    whole = {key_of(*texts_of(row)) for row in train}
    near = NearDuplicates()
    compared = sampled(train, lambda row: row.place)
    for row in compared if heldout else []:
        near.find_or_add(prompt_text(row.prompt))
    for row in heldout:
        text = prompt_text(row.prompt)
        if not text.strip():
            continue
        if key_of(*texts_of(row)) in whole:
            tally.add("leaked_rows", row.place, text)
        elif key_of(text) in prompts:
            tally.add("leaked_prompts", row.place, text)
        elif near.find(text):
            tally.add("near_leaks", row.place, text)
    return len(compared)


def _label_of(row: Row, *, turned: bool = False) -> bytes:
    """The label of a single completion as part of its key; of other rows nothing."""
    return bytes([row.label != turned]) if isinstance(row, Unpaired) else b""


def _turned(pair: Pair) -> bytes:
    """The key of the pair with its completions the other way round."""
    (chosen, _), (rejected, _) = completions_of(pair)
    prompts = texts_of(pair)[:-2]
    return key_of(*reversed(prompts), rejected, chosen)
