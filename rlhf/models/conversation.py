"""A conversation with a model: history, what fits its context, and answers as they are written.

conversation = open_conversation("runs/dpo", temperature=0)
for piece in conversation.ask("How do I keep bread fresh?"):
    ...                                      # text, as it comes
conversation.reply                           # the whole answer, whether it ended, what was dropped
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.data.tokenization import Renderer
from rlhf.errors import ConfigError, DataError
from rlhf.manifest import MANIFEST_NAME, Manifest
from rlhf.models.generation import batch_seed, context_length, end_token_ids
from rlhf.models.loading import load_policy, load_tokenizer
from rlhf.models.registry import made_from_simulated, resolve_model
from rlhf.models.streaming import stream_ids
from rlhf.records import Message

_HALF = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a character decode to


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """How answers are sampled: their longest length in tokens, temperature (0 is greedy), seed."""

    max_new_tokens: int = 256
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"--max_new_tokens {self.max_new_tokens}: must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"--temperature {self.temperature}: must be 0 (greedy) or above")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"--seed {self.seed}: must be from 0 to {2**32 - 1}")


@dataclass(slots=True, kw_only=True)
class Reply:
    """An answer: `text` without its end token, the number of tokens, whether it `ended` by itself
    (None while it is being written, and where its reader left), and `num_dropped`, how many of the
    oldest turns the model no longer saw.
    """

    text: str = ""
    num_tokens: int = 0
    ended: bool | None = None
    num_dropped: int = 0


@dataclass(slots=True)
class Conversation:
    """One model's side of a conversation; `turns` are those that it is shown, oldest first.

    `simulated` is whether simulated labels are behind the model. `num_asked` counts the answers
    since the last reset, and decides with the seed what is drawn.
    """

    name: str
    model: Any
    renderer: Renderer
    speech: Speech
    system: str | None = None
    simulated: bool = False
    turns: list[Message] = field(default_factory=list)
    reply: Reply = field(default_factory=Reply)
    num_asked: int = 0

    def ask(self, message: str) -> Generator[str, None, None]:
        """The answer to a message, piece by piece; whole pieces make up `reply.text`.

        The oldest turns are dropped where all do not fit the model's context. A reader who stops
        keeps what was written so far as the answer. DataError for an empty message and for one
        that alone is too long; the history is then as it was.
        """
        if not message.strip():
            raise DataError("an empty message; write what to ask")
        refuse_half_characters("the message", message)
        turns: list[Message] = [*self.turns, {"role": "user", "content": message}]
        prompt_ids, num_dropped = self._fitting(turns)
        self.reply = Reply(num_dropped=num_dropped)
        seed = batch_seed(self.speech.seed, self.num_asked)
        try:
            yield from self._pieces(prompt_ids, seed)
        except Exception:
            raise  # the history stays as it was, and the message can be sent again
        except BaseException:  # the reader has left, or wants no more of it
            self._keep(turns[num_dropped:])
            raise
        self._keep(turns[num_dropped:])

    def _keep(self, turns: list[Message]) -> None:
        self.turns = [*turns, {"role": "assistant", "content": self.reply.text}]
        self.num_asked += 1

    def answer(self, message: str) -> Reply:
        """The whole answer to a message; errors as `ask`."""
        for _ in self.ask(message):
            pass
        return self.reply

    def reset(self) -> None:
        """Forget all turns; what is asked next is answered as at the beginning."""
        self.turns, self.reply, self.num_asked = [], Reply(), 0

    def prompt_ids(self, turns: Sequence[Message]) -> list[int]:
        """Turns, after the system's if there is one, as ids; errors as Renderer."""
        opening: list[Message] = []
        if self.system is not None:
            opening = [{"role": "system", "content": self.system}]
        return self.renderer.prompt_ids([*opening, *turns])

    def _fitting(self, turns: Sequence[Message]) -> tuple[list[int], int]:
        """(the ids of the latest turns that leave room for an answer, how many were dropped)."""
        context = context_length(self.model)
        num_dropped, ids = 0, self.prompt_ids(turns)
        while context is not None and len(ids) + self.speech.max_new_tokens > context:
            num_dropped += 2  # a question and its answer
            if num_dropped >= len(turns):
                raise DataError(
                    f"{self.name}: the message alone has {len(ids)} tokens; with --max_new_tokens "
                    f"{self.speech.max_new_tokens} that is over the model's context of {context}; "
                    "shorten it, or the answer"
                )
            ids = self.prompt_ids(turns[num_dropped:])
        return ids, num_dropped

    def _pieces(self, prompt_ids: list[int], seed: int) -> Iterator[str]:
        tokenizer = self.renderer.tokenizer
        ends = end_token_ids(self.model, tokenizer, self.renderer)
        said: list[int] = []
        ids = stream_ids(
            self.model,
            prompt_ids,
            end_ids=ends,
            pad_id=tokenizer.pad_token_id,
            max_new_tokens=self.speech.max_new_tokens,
            temperature=self.speech.temperature,
            seed=seed,
        )
        ended = False
        for token_id in ids:
            self.reply.num_tokens += 1
            ended = token_id in ends
            if ended:
                break
            said.append(token_id)
            if piece := self._grown(said):
                yield piece
        if piece := self._grown(said, is_last=True):
            yield piece
        self.reply.ended = ended

    def _grown(self, said: list[int], *, is_last: bool = False) -> str:
        """What the reply has more than before; half a character is held back until it is whole."""
        text = self.renderer.tokenizer.decode(
            said, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        if text.endswith(_HALF) and not is_last:
            return ""
        piece = text[len(self.reply.text) :]
        self.reply.text = text
        return str(piece)


def refuse_half_characters(what: str, text: str) -> None:
    """DataError for text that a terminal or a file gave in other bytes than UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{what} is no whole text (bytes that are not UTF-8); mend it") from None


def open_conversation(
    name: str,
    *,
    speech: Speech | None = None,
    system: str | None = None,
    rendering: str | None = None,
    chat_template: str | None = None,
    dtype: str = "float32",
) -> Conversation:
    """A conversation with the model of a name, hub id, or folder (a stage's, with its adapter).

    `rendering` None is as the stage trained; `chat_template` is Jinja text that replaces the
    tokenizer's. ConfigError for a model that is not there or that has no chat template, DataError
    for a reward model, damaged weights, or a template that knows no system turn.
    """
    location = Path(resolve_model(name))
    refuse_half_characters("--system", system or "")
    tokenizer = load_tokenizer(name)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    conversation = Conversation(
        name=name,
        model=None,
        renderer=Renderer(tokenizer, rendering or _rendering_of(location)),
        speech=speech or Speech(),
        system=system,
        simulated=made_from_simulated(location),
    )
    # What the template refuses is said before weights are loaded.
    conversation.prompt_ids([{"role": "user", "content": "-"}])
    conversation.model = load_policy(name, dtype=dtype)
    return conversation


def side_by_side(conversations: Sequence[Conversation], message: str) -> Iterator[tuple[int, str]]:
    """(which of them, a piece of its answer) in turns, until the last has ended."""
    running = {index: each.ask(message) for index, each in enumerate(conversations)}
    try:
        while running:
            for index in list(running):
                piece = next(running[index], None)
                if piece is None:
                    del running[index]
                else:
                    yield index, piece
    finally:
        for answers in running.values():
            answers.close()


def _rendering_of(folder: Path) -> str:
    """How the stage that made a folder rendered messages; by the chat template elsewhere."""
    if not (folder / MANIFEST_NAME).is_file():
        return "chat"
    config = Manifest.read(folder).config
    return str(config.get("rendering") or "chat")
