"""`rlhf chat`: talk to one model, or to two side by side, in the terminal."""

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.config import CommandParser
from rlhf.errors import ConfigError, RlhfError, nearest_hint, printable

if TYPE_CHECKING:
    from rlhf.models.conversation import Conversation

SUMMARY = "talk to a model, or to two side by side, in the terminal"
EXAMPLE = (
    'rlhf chat --model_name_or_path runs/quickstart/dpo --message "How do I keep bread fresh?"'
)
COMMANDS = {
    "/reset": "forget all turns",
    "/help": "these lines",
    "/quit": "leave (also Ctrl-D)",
}
_MOST = 2  # models that fit beside each other


def main(argv: Sequence[str]) -> int:
    """Answer `--message`, or talk until /quit."""
    options = read_options(argv)
    from rlhf.models.conversation import Speech, open_conversation
    from rlhf.models.loading import quiet_transformers
    from rlhf.training.quiet import silence_known_noise

    silence_known_noise()
    speech = Speech(
        max_new_tokens=options.max_new_tokens, temperature=options.temperature, seed=options.seed
    )
    with quiet_transformers():
        conversations = [
            open_conversation(
                name,
                speech=speech,
                system=options.system,
                rendering=options.rendering,
                chat_template=_template(options.chat_template_file),
                dtype=options.dtype,
            )
            for name in options.model_name_or_path
        ]
    if options.message is not None:
        say(conversations, options.message)
        return 0
    talk(conversations)
    return 0


def read_options(argv: Sequence[str]) -> argparse.Namespace:
    """The options of `argv`, checked; ConfigError."""
    options = command_line().parse_args(list(argv))
    if len(options.model_name_or_path) > _MOST:
        raise ConfigError(f"--model_name_or_path: at most {_MOST} models beside each other")
    if options.message is not None and not options.message.strip():
        raise ConfigError("--message: empty; write what to ask")
    return options


def command_line() -> argparse.ArgumentParser:
    """The options of `rlhf chat`."""
    parser = CommandParser(
        prog="rlhf chat", description=SUMMARY, epilog=f"example: {EXAMPLE}", allow_abbrev=False
    )
    parser.add_argument(
        "--model_name_or_path",
        nargs="+",
        required=True,
        metavar="MODEL",
        help="a stage's folder, a named model or a hub id; of two, both answer",
    )
    parser.add_argument("--message", help="print the answer to this alone, and exit")
    parser.add_argument("--system", help="what the model is told before the first turn")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy; default 1")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal answers")
    parser.add_argument(
        "--max_new_tokens", type=int, default=256, help="longest answer, in tokens; default 256"
    )
    parser.add_argument(
        "--rendering",
        choices=["chat", "plain"],
        help="by the chat template or as a plain transcript; default: as the stage trained",
    )
    parser.add_argument(
        "--chat_template_file", type=Path, help="Jinja file in place of the tokenizer's template"
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16", "auto"],
        default="float32",
        help="what is computed in; auto: as stored",
    )
    return parser


def talk(conversations: "Sequence[Conversation]") -> None:
    """Ask, answer, and obey commands until /quit or the end of the input."""
    for each in conversations:
        marked = " (SIMULATED labels are behind it)" if each.simulated else ""
        print(f"{each.name}{marked}", file=sys.stderr)
    print("  ".join(f"{name}: {what}" for name, what in COMMANDS.items()), file=sys.stderr)
    for line in _lines():
        if line.startswith("/") and not line.startswith("//"):
            if not obey(conversations, line.strip()):
                return
            continue
        if not line.strip():
            print("(an empty message; write what to ask)", file=sys.stderr)
            continue
        try:
            say(conversations, line.removeprefix("/") if line.startswith("//") else line)
        except RlhfError as error:
            print(f"rlhf chat: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print("\n(stopped; the answer stays as far as it came)", file=sys.stderr)


def obey(conversations: "Sequence[Conversation]", command: str) -> bool:
    """Do what a command says; whether to go on."""
    if command == "/reset":
        for each in conversations:
            each.reset()
        print("(forgotten)", file=sys.stderr)
    elif command == "/help":
        for name, what in COMMANDS.items():
            print(f"{name}  {what}", file=sys.stderr)
    elif command != "/quit":
        hint = nearest_hint(command, COMMANDS)
        print(
            f"no such command: {printable(command)}{hint}; // begins a message with /",
            file=sys.stderr,
        )
    return command != "/quit"


def say(conversations: "Sequence[Conversation]", message: str) -> None:
    """Print each model's answer as it comes, and what a reader has to know of it after it."""
    if len(conversations) > 1 and sys.stdout.isatty():
        _in_columns(conversations, message)
    else:
        for each in conversations:
            if len(conversations) > 1:
                print(f"== {each.name} ==")
            with closing(each.ask(message)) as pieces:
                for piece in pieces:
                    print(shown(piece), end="", flush=True)
                print(flush=True)
    for each in conversations:
        for remark in remarks(each):
            print(f"({each.name}: {remark})", file=sys.stderr)


def remarks(conversation: "Conversation") -> Iterator[str]:
    """What was dropped before the answer, and whether it was cut."""
    reply = conversation.reply
    if reply.num_dropped:
        yield f"the context is full: the oldest {reply.num_dropped} turns were dropped"
    if reply.ended is False:
        yield f"cut at --max_new_tokens {conversation.speech.max_new_tokens}"
    if not reply.text.strip() and reply.ended:
        yield "an empty answer: it ended at once"


def shown(text: str) -> str:
    """Text without what would move a terminal's cursor; line breaks and tabs stay."""
    kept = (one if one.isprintable() or one in "\n\t\u200c\u200d" else "\ufffd" for one in text)
    return "".join(kept)


def _in_columns(conversations: "Sequence[Conversation]", message: str) -> None:
    """Both answers beside each other, each as it grows."""
    from rich.live import Live
    from rich.table import Column, Table
    from rich.text import Text

    from rlhf.models.conversation import side_by_side

    texts = [Text() for _ in conversations]

    def table() -> Table:
        names = (Text(shown(each.name)) for each in conversations)
        beside = Table(*(Column(name, ratio=1) for name in names), expand=True)
        beside.add_row(*texts)
        return beside

    with Live(table(), refresh_per_second=8) as live:
        for index, piece in side_by_side(conversations, message):
            texts[index].append(shown(piece))
            live.update(table())


def _lines() -> Iterator[str]:
    """What is typed, a message at a time, until the input ends."""
    prompt = "> " if sys.stdin.isatty() else ""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text end no conversation
    if prompt:
        import readline  # noqa: F401  (arrow keys and history in `input`)
    while True:
        try:
            yield input(prompt)
        except (EOFError, KeyboardInterrupt):
            return


def _template(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"{path}: {reason}; give a Jinja file") from None
