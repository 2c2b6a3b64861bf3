"""One tokenisation for sampling, training and scoring: exactly the ids that a rollout produces.

A prompt is rendered with the generation prompt; a completion follows as its own tokens, then
the end-of-turn token if it ended by itself, then nothing. So what a policy is trained on is
what it samples, and a reward model sees the same last token for both.
"""

from collections.abc import Sequence
from typing import Any, cast

from jinja2 import TemplateError

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.transcripts import assistant_opening, transcript_text
from rlhf.records import Message, PromptContent

_PROBE = "\u2603probe\u2603"  # stands for a completion when the template is asked what follows one

# About texts over the tokenizer's own limit: what is too long is counted, and dropped or cut, here.
_SILENT = {"verbose": False}

RENDERINGS = ("chat", "plain")
"""How messages become text: by the tokenizer's chat template, or as a plain transcript."""


class Renderer:
    """Turns prompts and completions into token ids for one tokenizer.

    `rendering` "chat" renders messages by the tokenizer's chat template; "plain" as a
    transcript ("\\n\\nHuman: ...\\n\\nAssistant: ..."), which needs none and ends in eos.
    """

    def __init__(self, tokenizer: Any, rendering: str = RENDERINGS[0]) -> None:
        """ConfigError for another rendering, or when no token could end a completion."""
        if rendering not in RENDERINGS:
            raise ConfigError(f"--rendering {rendering}: must be {' or '.join(RENDERINGS)}")
        self.tokenizer = tokenizer
        self.rendering = rendering
        self.turn_end_id: int = _turn_end_id(tokenizer, rendering)

    def prompt_ids(self, prompt: PromptContent) -> list[int]:
        """The ids up to where a completion starts; ConfigError for messages without a template.

        Plain text is tokenised as it stands. Messages are rendered up to where the assistant
        begins to speak; when the last turn is the assistant's, it is continued instead.
        DataError for a role that a plain transcript does not know, for turns that the template
        refuses, and for no turn at all.
        """
        if isinstance(prompt, str):
            return self._plain_ids(prompt)
        continued = bool(prompt) and prompt[-1]["role"] == "assistant"
        if self.rendering == "plain":
            opening = "" if continued else assistant_opening()
            return self._plain_ids(transcript_text(prompt) + opening)
        if not self.tokenizer.chat_template:
            raise ConfigError(
                "the tokenizer has no chat template, so it cannot render messages; give "
                "--chat_template_file FILE.jinja or --rendering plain, a chat model, or a "
                "plain-text data set"
            )
        if not prompt:
            raise DataError("a prompt without turns: nothing is asked; mend or remove that row")
        try:
            ids = self.tokenizer.apply_chat_template(
                prompt,
                tokenize=True,
                return_dict=False,
                add_generation_prompt=not continued,
                continue_final_message=continued,
                tokenizer_kwargs=_SILENT,
            )
        except TemplateError as error:
            reason = " ".join(str(error).split())[:80].replace(";", ",")
            raise DataError(
                f"refused by the chat template ({reason}); mend the turns or remove that row"
            ) from None
        return cast(list[int], list(ids))

    def completion_ids(self, text: str, ended: bool | None = True) -> list[int]:
        """The ids of a completion, with the end-of-turn id last unless `ended` is False.

        Special tokens written out in the text are data, and never become special tokens: no
        completion can end itself in its middle.
        """
        encoded = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, **_SILENT
        )
        ids: list[int] = list(encoded["input_ids"])
        return ids if ended is False else [*ids, self.turn_end_id]

    def transcript_ids(
        self, prompt: PromptContent, completion: str, ended: bool | None = True
    ) -> list[int]:
        """Prompt and completion in one row of ids, as a reward model reads them."""
        return self.prompt_ids(prompt) + self.completion_ids(completion, ended)

    def conversation_ids(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Ids [T] and completion mask [T] of a conversation: 1 on every assistant turn.

        An earlier turn that the template renders differently once it is history (some drop the
        reasoning) is left out of the mask, since a rollout would never produce it like that.
        """
        turns = list(messages)
        prompt = self.prompt_ids(turns[:-1])
        completion = self.completion_ids(turns[-1]["content"])
        ids = prompt + completion
        mask = [0] * len(prompt) + [1] * len(completion)
        for index, turn in enumerate(turns[:-1]):
            if index == 0 or turn["role"] != "assistant":
                continue
            before = self.prompt_ids(turns[:index])
            upto = before + self.completion_ids(turn["content"])
            if ids[: len(upto)] == upto:
                mask[len(before) : len(upto)] = [1] * (len(upto) - len(before))
        return ids, mask

    def _plain_ids(self, text: str) -> list[int]:
        ids: list[int] = list(self.tokenizer(text, **_SILENT)["input_ids"])
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            ids = ids[1:]  # the text brought its own
        if eos is not None and ids and ids[-1] == eos and not text.endswith(_eos_text(self)):
            ids = ids[:-1]  # some tokenizers close every text; a prompt goes on
        return ids


def _eos_text(renderer: Renderer) -> str:
    return str(renderer.tokenizer.eos_token)


def _turn_end_id(tokenizer: Any, rendering: str) -> int:
    """The special token that the chat template puts after an assistant's turn, else eos.

    A plain transcript ends in eos, where there is one.
    """
    if rendering == "plain" and tokenizer.eos_token_id is not None:
        return int(tokenizer.eos_token_id)
    specials = set(tokenizer.all_special_ids) | {
        token_id
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if getattr(token, "special", False)
    }
    for token_id in _ids_after_completion(tokenizer):
        if token_id in specials and token_id != tokenizer.pad_token_id:
            return int(token_id)
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "the tokenizer has neither an end-of-turn nor an eos token, so no completion could "
            "ever end; set its eos_token"
        )
    return int(tokenizer.eos_token_id)


def _ids_after_completion(tokenizer: Any) -> list[int]:
    if not tokenizer.chat_template:
        return []
    turns = [{"role": "user", "content": "-"}, {"role": "assistant", "content": _PROBE}]
    try:
        rendered = tokenizer.apply_chat_template(turns, tokenize=False)
    except TemplateError as error:
        reason = " ".join(str(error).split())[:80]
        raise ConfigError(
            f"the chat template cannot render a question and its answer ({reason}); mend it, or "
            "give another --chat_template_file"
        ) from None
    tail = rendered.rpartition(_PROBE)[2]
    return list(tokenizer(tail, add_special_tokens=False)["input_ids"])
