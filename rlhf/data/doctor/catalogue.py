"""Every kind of finding: how serious it is, what it says, and what to do about it."""

import re
from dataclasses import dataclass

from rlhf.data.doctor.findings import Severity


@dataclass(frozen=True, slots=True)
class Kind:
    """`words` follow a count ("3 rows ..."); `advice` says what a person can do."""

    severity: Severity
    words: str
    advice: str


LOSSES: dict[str, tuple[str, str]] = {
    # name: (pattern of the reason that rlhf.data counted it for, advice)
    "too_long": (
        r"--max_length",
        "raise --max_length if the model's context and the memory allow it, or leave them out",
    ),
    "over_context": (
        r"model's context",
        "choose a model with a longer context (for prompts: or lower --max_new_tokens or "
        "--max_completion_length), or leave these rows out",
    ),
    "identical_pair": (
        r"^identical",
        "a pair of equal texts teaches nothing: rlhf clean removes it (or record a tie)",
    ),
    "empty_prompt": (r"empty prompt|prompt tokens", "give the prompt, or let rlhf clean remove it"),
    "empty_completion": (
        r"empty completion|without tokens",
        "there is nothing to imitate: give the completion, or let rlhf clean remove the row",
    ),
    "wrong_roles": (
        r"assistant's turn|open with a Human|chat template|a turn by",
        "mend the roles: user and assistant in turn, the assistant's last",
    ),
    "half_characters": (r"half a character", "the text was cut inside a character: export it anew"),
    "not_text": (r"must be text", "mend the field, or let rlhf clean remove the row"),
    "wrong_value": (r"must be", "mend the value, or let rlhf clean remove the row"),
}
"""The names of losses; the first pattern that fits wins. Any other is `unusable_row`."""

_UNUSABLE = ("unusable_row", "mend the row, or let rlhf clean remove it")

KINDS: dict[str, Kind] = {
    # tokens
    "double_bos": Kind(
        "warning",
        "rows begin with two BOS tokens",
        "the text brings a BOS of its own: remove it from the text or the chat template",
    ),
    "missing_end": Kind(
        "warning",
        "rows ended but carry no end-of-turn token",
        "the model would not learn to stop: mend the chat template or the eos token",
    ),
    "template_tokens": Kind(
        "warning",
        "rows hold a chat template's own tokens in their text",
        "the template may be applied twice: give messages or bare text, not rendered text",
    ),
    "unparsed_transcript": Kind(
        "warning",
        "rows hold a transcript (Human:, Assistant:) as plain text",
        "rlhf clean turns transcripts into messages, which the model's own template renders",
    ),
    "stray_speakers": Kind(
        "warning",
        "rows hold a speaker's name (Human:, Assistant:) within a text",
        "the transcript's marks are damaged there: mend them, or leave the rows out",
    ),
    "past_context": Kind(
        "warning",
        "training rows are longer than the model's context",
        "lower --max_length to the context: the model has learnt nothing beyond it",
    ),
    "cut_completions": Kind(
        "note",
        "rows hold a completion that was cut when it was sampled",
        "they get no end token, so that a cut looks like a cut; nothing to do",
    ),
    "unknown_end": Kind(
        "note",
        "rows do not say whether their completions ended by themselves",
        "all are taken as ended; add `ended` (or chosen_ended, rejected_ended) where some were cut",
    ),
    "empty_answers": Kind(
        "warning",
        "pairs hold an empty completion, kept like any other",
        "check that an empty answer was really rated; else remove the pair",
    ),
    # roles
    "unknown_roles": Kind(
        "warning",
        "rows have a turn that is neither system, user nor assistant",
        "rename the roles; a template may drop such a turn or render it as it likes",
    ),
    "repeated_roles": Kind(
        "warning",
        "rows have two turns of one role running",
        "join the turns, or put in the one that is missing",
    ),
    "late_system": Kind(
        "warning",
        "rows have a system turn that is not the first",
        "put it first: many templates refuse it elsewhere or drop it",
    ),
    "prompt_ends_with_assistant": Kind(
        "warning",
        "prompts end with an assistant's turn, which the completion then continues",
        "if the completion is a turn of its own, the user's turn before it is missing",
    ),
    "empty_turns": Kind(
        "warning", "rows have an empty turn before the last", "give the text, or drop the turn"
    ),
    # duplicates
    "duplicate_rows": Kind(
        "warning",
        "training rows repeat an earlier one",
        "each counts double: rlhf clean removes exact repetitions",
    ),
    "contradicting_pairs": Kind(
        "warning",
        "training pairs say the opposite of an earlier one",
        "the two cancel: sum the votes up as p_chosen, or decide",
    ),
    "contradicting_labels": Kind(
        "warning",
        "training completions have the other label than an earlier one of the same words",
        "the two cancel: decide, or leave both out",
    ),
    "near_duplicates": Kind(
        "warning",
        "training rows nearly repeat an earlier one",
        "look at them; rlhf clean --near_threshold 0.8 removes them",
    ),
    "leaked_rows": Kind(
        "warning",
        "held-out rows are trained on, too",
        "remove them from one side: what is measured on them is memory",
    ),
    "leaked_prompts": Kind(
        "warning",
        "held-out rows have a prompt that is trained on, too",
        "remove them from one side, or hold out with --eval_fraction",
    ),
    "near_leaks": Kind(
        "warning",
        "held-out rows have a prompt that nearly is one trained on",
        "rlhf clean --near_threshold 0.8 on all data before they are split",
    ),
    # scripts
    "other_script": Kind(
        "warning",
        "rows answer in another script than their prompt's",
        "check that this is meant: otherwise the language, not the quality, is what is learnt",
    ),
    "sides_differ_in_script": Kind(
        "warning",
        "pairs have chosen and rejected in different scripts",
        "check that this is meant: otherwise the language, not the quality, is what is learnt",
    ),
    "mixed_scripts": Kind(
        "warning", "rows hold a text in several scripts", "look for garbled or mixed-up texts"
    ),
    # private data
    "private_email": Kind(
        "warning",
        "rows hold an e-mail address",
        "rlhf clean --mask_private puts [EMAIL] in its place",
    ),
    "private_phone": Kind(
        "warning",
        "rows hold what looks like a phone number",
        "rlhf clean --mask_private puts [PHONE] in its place",
    ),
    "private_card": Kind(
        "warning",
        "rows hold a payment card number",
        "rlhf clean --mask_private puts [CARD] in its place",
    ),
    "private_iban": Kind(
        "warning",
        "rows hold a bank account number (IBAN)",
        "rlhf clean --mask_private puts [IBAN] in its place",
    ),
    # templates
    "template_differs": Kind(
        "warning",
        "other models of this loop are rendered differently",
        "use one chat template for all stages: --chat_template_file on each, or on none",
    ),
    # what rlhf.data notes
    "differing_prompts": Kind(
        "note",
        "pairs have two different prompts",
        "they are scored as two transcripts, and DPO uses the common beginning; nothing to do",
    ),
}

_NOTES = {"pairs whose prompts differ": "differing_prompts"}
# The doctor finds this one itself, with its places.
_SAID_OTHERWISE = {"rows to measure on whose prompt is trained on too"}


def loss_of(reason: str) -> tuple[str, str]:
    """Name and advice for a reason to drop or cut a row."""
    for name, (pattern, advice) in LOSSES.items():
        if re.search(pattern, reason):
            return name, advice
    return _UNUSABLE


def note_of(what: str) -> tuple[str, Kind] | None:
    """Name and kind of something that rlhf.data noted; None when a finding of its own says it."""
    if what in _SAID_OTHERWISE:
        return None
    if what in _NOTES:
        return _NOTES[what], KINDS[_NOTES[what]]
    name = re.sub(r"[^a-z0-9]+", "_", what.lower()).strip("_")
    return name, Kind("note", what, "nothing to do")
