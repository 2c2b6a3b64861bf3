"""Which scripts texts are written in. Languages are not told apart, only their letters."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

from rlhf.data.doctor.findings import Tally, brief
from rlhf.data.doctor.texts import Row, completions_of, prompts_of_row
from rlhf.data.formats import Pair

MIN_LETTERS = 12
"""A text of fewer letters (OK, a formula) is not said to be in any script."""

_MIXED_SHARE = 0.2
# What one language writes in several scripts is one here: Japanese has all three.
_GROUPS = {"CJK": "HAN/KANA", "HIRAGANA": "HAN/KANA", "KATAKANA": "HAN/KANA"}
_WIDTHS = {"FULLWIDTH", "HALFWIDTH", "MATHEMATICAL", "MODIFIER", "SUPERSCRIPT", "SUBSCRIPT"}


def find_scripts(rows: Sequence[Row], tally: Tally) -> None:
    """Count rows that mix scripts, within a text or between prompt, chosen and rejected."""
    for row in rows:
        prompts = prompts_of_row(row)
        answers = [text for text, _ in completions_of(row)]
        counts = [script_counts(text) for text in (*prompts, *answers)]
        asked, *said = (main_script(count) for count in (counts[0], *counts[len(prompts) :]))
        known = [script for script in said if script is not None]
        if isinstance(row, Pair) and len(set(known)) > 1:
            text = f"{said[0]}: {brief(row.chosen, 50)} / {said[1]}: {brief(row.rejected, 50)}"
            tally.add("sides_differ_in_script", row.place, text)
        elif asked is not None and any(script != asked for script in known):
            tally.add("other_script", row.place, f"{asked}: {brief(prompts[0], 50)} / {known[0]}")
        mixed = [is_mixed(count) for count in counts]
        if any(mixed):
            tally.add("mixed_scripts", row.place, (*prompts, *answers)[mixed.index(True)])


def script_counts(text: str) -> Counter[str]:
    """How many letters of each script a text has; digits and signs belong to none."""
    counts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        script = _script(character)
        if script:
            counts[script] += count
    return counts


def main_script(counts: Counter[str]) -> str | None:
    """The script of most letters of a text; None with fewer than MIN_LETTERS of them."""
    return counts.most_common(1)[0][0] if counts.total() >= MIN_LETTERS else None


def is_mixed(counts: Counter[str]) -> bool:
    """Whether a fifth of a text's letters or more are not of its main script."""
    total = counts.total()
    if total < MIN_LETTERS:
        return False
    return total - counts.most_common(1)[0][1] >= _MIXED_SHARE * total


@cache
def _script(character: str) -> str | None:
    """The first word of a letter's Unicode name, which is its script's."""
    if not character.isalpha():
        return None
    words = unicodedata.name(character, "").split(" ")
    word = next((word for word in words if word not in _WIDTHS), "")
    return _GROUPS.get(word, word) or None
