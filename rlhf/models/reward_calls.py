"""The arguments of a TRL reward function, as prompts, completions and how each ended.

Source: TRL's "Using a custom reward function" (GRPO, RLOO): keywords `prompts`, `completions`,
`completion_ids`, every other column of the data set, and the trainer's own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.errors import DataError
from rlhf.records import PromptContent

TrlCompletion = str | Sequence[Mapping[str, Any]]


def split_turns(
    prompts: Sequence[PromptContent], completions: Sequence[TrlCompletion]
) -> tuple[list[PromptContent], list[str]]:
    """(prompts, completion texts); of a completion of several turns only the last is scored, and
    the turns before it (a tool's calls and answers) belong to its prompt.

    DataError for a completion that is neither text nor messages that end with the assistant.
    """
    asked: list[PromptContent] = []
    texts: list[str] = []
    for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if isinstance(completion, str):
            asked.append(prompt)
            texts.append(completion)
            continue
        *before, last = _turns(index, completion)
        if before:
            opened = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            prompt = [*opened, *before]
        asked.append(prompt)
        texts.append(last["content"])
    return asked, texts


def refuse_lone_text(**columns: object) -> None:
    """DataError where a lone text stands for a list: each of its characters would be scored."""
    for name, values in columns.items():
        if isinstance(values, str):
            raise DataError(f"{name} must be a list with one for each completion, not a text")


def ended_flags(
    texts: Sequence[str],
    completion_ids: Sequence[Sequence[int]] | None,
    columns: Mapping[str, Any],
    tokenizer: Any,
    end_ids: set[int],
) -> list[bool | None]:
    """Whether each completion stopped by itself; None where nothing says so.

    A column `ended` decides. Without it the ids that the policy produced do, where they decode
    to the text: another tokenizer's ids mean something else here.
    """
    if "ended" in columns:
        flags = list(columns["ended"])
        if len(flags) != len(texts) or not all(
            flag is None or isinstance(flag, bool) for flag in flags
        ):
            raise DataError(
                "the column 'ended' must be true or false for each completion; rename or drop it"
            )
        return flags
    if completion_ids is None:
        return [None] * len(texts)
    return [
        _last_token_ends(text, list(ids), tokenizer, end_ids)
        for text, ids in zip(texts, completion_ids, strict=True)
    ]


def is_completion(
    text: str, ended: bool | None, ids: Sequence[int], tokenizer: Any, end_ids: set[int]
) -> bool:
    """Whether sampled ids are this text, and end as `ended` says, to this tokenizer.

    Those of another tokenizer decode to something else; so do those of a text that was changed
    after it had been sampled.
    """
    said = list(ids)
    has_end = bool(said) and said[-1] in end_ids
    if ended is not None and has_end != ended:
        return False
    said = said[:-1] if has_end else said
    if any(not 0 <= each < len(tokenizer) for each in said):
        return False
    decoded: str = tokenizer.decode(
        said, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return decoded == text


def _last_token_ends(text: str, ids: list[int], tokenizer: Any, end_ids: set[int]) -> bool | None:
    if tokenizer.decode(ids, skip_special_tokens=True) != text:
        return None
    return bool(ids) and ids[-1] in end_ids


def _turns(index: int, completion: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    turns = [
        {"role": turn.get("role"), "content": turn.get("content")}
        for turn in completion
        if isinstance(turn, Mapping)
    ]
    texts = all(isinstance(turn["content"], str) for turn in turns)
    if not turns or len(turns) < len(completion) or not texts or turns[-1]["role"] != "assistant":
        raise DataError(
            f"completion {index}: must be text, or messages with text that end with the assistant's"
        )
    return turns
