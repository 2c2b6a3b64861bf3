"""Judges of two completions: a function of yours, or a model behind an OpenAI-compatible URL.

A judge is asked about many pairs at once and gives for each 0 or 1, the index of the better one,
"tie", or why it has no answer. TRL's judges (its BasePairwiseJudge) had this signature.
"""

import inspect
import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from rlhf.errors import ConfigError, RlhfError, StageError, printable
from rlhf.feedback.transcripts import transcript_text
from rlhf.records import PromptContent, content_hash
from rlhf.training.rewards.functions import find_object, function_sha256

Pair = tuple[str, str]
Advance = Callable[[int, int], None]
KEY_VARIABLE = "RLHF_JUDGE_API_KEY"
"""Where the key of a judge behind a URL is taken from, if it needs one."""
_NUM_TRIES = 2
_AT_ONCE = 64  # questions between two moves of the bar
_MAX_SHOWN = 80


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why a judge gave no verdict on a pair."""

    reason: str


Answer = Literal[0, 1, "tie"] | NoAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What both orders of a pair came to: `first_wins` 1, 0, or 0.5 for a tie.

    `turned`: each order preferred what stood at the same place. `failures`: a reason for each
    order without an answer.
    """

    first_wins: float
    turned: bool = False
    failures: tuple[str, ...] = ()


class Judge(Protocol):
    """Compares two completions of a prompt."""

    name: str

    def compare(self, prompts: Sequence[PromptContent], pairs: Sequence[Pair]) -> list[Answer]:
        """Which of each pair is better, as they are shown."""

    def as_dict(self) -> dict[str, Any]:
        """For a manifest's provenance."""


def ask_both_orders(
    judge: Judge, prompts: Sequence[PromptContent], pairs: Sequence[Pair], advance: Advance
) -> list[Verdict]:
    """The verdict on each pair, shown once as it is and once turned round.

    `advance(done, total)` counts questions.
    """
    answers: list[Answer] = []
    asked = list(prompts) + list(prompts)
    shown = [*pairs, *((second, first) for first, second in pairs)]
    for start in range(0, len(shown), _AT_ONCE):
        chosen = slice(start, start + _AT_ONCE)
        answers += judge.compare(asked[chosen], shown[chosen])
        advance(len(answers), len(shown))
    both = zip(answers[: len(pairs)], answers[len(pairs) :], strict=True)
    return [verdict_of(straight, turned) for straight, turned in both]


def verdict_of(straight: Answer, turned: Answer) -> Verdict:
    """What two answers come to, the second to the pair in the other order.

    One that is a tie leaves the decision to the other; with one missing there is no verdict, since
    nothing then stands against the judge's liking for a place.
    """
    failures = tuple(each.reason for each in (straight, turned) if isinstance(each, NoAnswer))
    if failures:
        return Verdict(first_wins=0.5, failures=failures)
    worth = {0: 1.0, 1: 0.0, "tie": 0.5}
    first = worth[straight]
    again = 1 - worth[turned]
    mean = (first + again) / 2
    return Verdict(
        first_wins=0.5 if mean == 0.5 else float(mean > 0.5), turned=abs(first - again) == 1
    )


class FunctionJudge:
    """A function `judge(prompts, completions)`: a list with an answer for each pair.

    `prompts` are as the data has them, `completions` lists of two texts. An answer is 0 or 1, the
    index of the better one, a ranking (the indices, best first), "tie", or -1 or None for none.
    """

    def __init__(self, name: str) -> None:
        """ConfigError when there is no such function."""
        self.origin = name
        function = find_object(name, option="--judge")
        if inspect.isclass(function) or not callable(function):
            raise ConfigError(
                f"--judge {name}: not a function; give package.module.function or FILE.py:function"
            )
        self.function: Callable[..., Any] = function
        self.name = getattr(function, "__name__", name)

    def compare(self, prompts: Sequence[PromptContent], pairs: Sequence[Pair]) -> list[Answer]:
        """The function's answers; StageError when it raises or answers another number of pairs."""
        # We ask in both orders ourselves.
        options = {"shuffle_order": False} if _takes(self.function, "shuffle_order") else {}
        try:
            returned = self.function(list(prompts), [list(pair) for pair in pairs], **options)
        except RlhfError:
            raise
        except (Exception, SystemExit) as error:
            reason = printable(str(error))[:160]
            raise self._wrong(f"raised {type(error).__name__}: {reason}") from error
        if hasattr(returned, "tolist"):
            returned = returned.tolist()
        if not isinstance(returned, (list, tuple)) or len(returned) != len(pairs):
            size = len(returned) if isinstance(returned, (list, tuple)) else type(returned).__name__
            raise self._wrong(f"returned {size} answers for {len(pairs)} pairs")
        return [_read_answer(each) for each in returned]

    def as_dict(self) -> dict[str, Any]:
        """Its name and the sha256 of its file."""
        sha256 = function_sha256(self.function, self.origin)
        return {"name": self.name, "kind": "judge", "path": self.origin, "sha256": sha256}

    def _wrong(self, what: str) -> StageError:
        return StageError(
            f"the judge {self.name!r} {what}; mend it, and run the same command again: it goes on "
            "from the last checkpoint"
        )


class ChatJudge:
    """A chat model behind an OpenAI-compatible URL (`BASE/chat/completions`), asked for A or B.

    The key, if one is needed, comes from the environment variable RLHF_JUDGE_API_KEY.
    """

    def __init__(self, url: str, model: str, *, timeout_s: float, num_at_once: int = 8) -> None:
        self.url = url.rstrip("/") + "/chat/completions"
        self.model = model
        self.timeout_s = timeout_s
        self.num_at_once = num_at_once
        self.name = model

    def compare(self, prompts: Sequence[PromptContent], pairs: Sequence[Pair]) -> list[Answer]:
        """The model's answers, several asked at once; what fails twice is no answer."""
        with ThreadPoolExecutor(max_workers=self.num_at_once) as threads:
            return list(threads.map(self._ask, prompts, pairs))

    def as_dict(self) -> dict[str, Any]:
        """Model, place and the hash of the question: whoever stands behind the URL is not known."""
        sha256 = content_hash([self.url, self.model, _QUESTION])
        return {"name": self.name, "kind": "judge", "path": self.url, "sha256": sha256}

    def _ask(self, prompt: PromptContent, pair: Pair) -> Answer:
        found: Answer = NoAnswer("not asked")
        for _ in range(_NUM_TRIES):
            found = self._ask_once(prompt, pair)
            if not isinstance(found, NoAnswer):
                break
        return found

    def _ask_once(self, prompt: PromptContent, pair: Pair) -> Answer:
        text = prompt if isinstance(prompt, str) else transcript_text(prompt)
        question = _QUESTION.format(prompt=text, first=pair[0], second=pair[1])
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 8,
        }
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        request = Request(self.url, json.dumps(body).encode(), headers)
        try:
            with urlopen(request, timeout=self.timeout_s) as answer:
                said = json.load(answer)["choices"][0]["message"]["content"]
        except HTTPError as error:
            return NoAnswer(f"HTTP {error.code} from {self.url}")
        except TimeoutError:
            return NoAnswer(f"no answer within {self.timeout_s:g} s")
        except (URLError, OSError) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                return NoAnswer(f"no answer within {self.timeout_s:g} s")
            return NoAnswer(f"{self.url}: {getattr(error, 'reason', error)}")
        except (ValueError, KeyError, IndexError, TypeError):
            return NoAnswer("an answer that is not a chat completion")
        return read_letter(str(said))


_QUESTION = """Which answer to the request below is better: more helpful, more correct, harmless?

[Request]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

Reply with one letter, A or B, or with the word tie if neither is better."""


def read_letter(said: str) -> Answer:
    """0 for A, 1 for B, "tie", or no answer: the first word must be one of them."""
    match = re.match(r"\W*(?:answer\W+)?(a|b|tie)\b", said.strip(), re.IGNORECASE)
    if match is None:
        return NoAnswer(f"{printable(said)[:_MAX_SHOWN]!r} is neither A, B nor tie")
    word = match.group(1).lower()
    return {"a": 0, "b": 1, "tie": "tie"}[word]  # type: ignore[return-value]


def make_judge(stage: Any) -> FunctionJudge | ChatJudge | None:
    """The judge that the settings name, if they do."""
    if stage.judge:
        return FunctionJudge(stage.judge)
    if stage.judge_url:
        return ChatJudge(stage.judge_url, stage.judge_model, timeout_s=stage.judge_timeout_s)
    return None


def refuse_impossible_judge(stage: Any) -> None:
    """ConfigError for a judge of which something is missing, or that is not alone."""
    if stage.judge and stage.judge_url:
        raise ConfigError("--judge and --judge_url: name one judge")
    if stage.judge_url and not stage.judge_model:
        raise ConfigError("--judge_url: needs --judge_model, the name of the model behind it")
    if stage.judge_model and not stage.judge_url:
        raise ConfigError("--judge_model: needs --judge_url, where it answers")
    if stage.judge_url and urlsplit(stage.judge_url).scheme not in ("http", "https"):
        raise ConfigError(f"--judge_url {stage.judge_url}: must begin with http:// or https://")
    if not 0 < stage.judge_timeout_s < float("inf"):
        raise ConfigError(f"--judge_timeout_s {stage.judge_timeout_s}: must be above 0 and finite")


def _read_answer(value: Any) -> Answer:
    if value is None or (isinstance(value, (int, float)) and value == -1):
        return NoAnswer("it said that it has none")
    if value == "tie":
        return "tie"
    if isinstance(value, (list, tuple)) and list(value) in ([0, 1], [1, 0]):
        value = value[0]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value in (0, 1):
        return 0 if value == 0 else 1
    return NoAnswer(f"{printable(repr(value))[:_MAX_SHOWN]} is neither 0, 1, a ranking nor tie")


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
