"""What the readers of other tools' formats share: the names of fields and answers, understood."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rlhf.errors import ConfigError, DataError, nearest_hint
from rlhf.records import PromptContent

Row = dict[str, Any]

AnswerKind = Literal["verdict", "ranking", "rating", "flag", "rewrite", "rationale", "ignore"]
ANSWER_KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)

_PROMPTS = re.compile(
    r"(system|prompt|instruction|question|query|input|context|messages|chat|conversation|dialogue"
    r"|history|post|article)s?"
)
_COMPLETION_WORDS = (
    "response|completion|answer|output|generation|reply|candidate|summary|model|option|text"
    "|assistant"
)
_COMPLETIONS = re.compile(rf"(?:{_COMPLETION_WORDS})s?(?:\d+|[a-i])?|chosen|rejected|items")
_RATIONALES = re.compile(r"comment|rational|reason|explan|why|critique|note|justif|feedback")
_REWRITES = re.compile(r"correct|rewrit|edit|improve|better|revis|demonstration|ideal")
_TIES = {
    "tie",
    "equal",
    "same",
    "draw",
    "both",
    "either",
    "bothgood",
    "aboutthesame",
    "equallygood",
}
_BOTH_BAD = {"neither", "none", "bothbad", "botharebad", "equallybad", "bothbadly"}
_DEGREES = {"slightly": 1, "somewhat": 1, "marginally": 1, "clearly": 2}
_DEGREES |= {"much": 3, "significantly": 3, "far": 3, "strongly": 3}
_SIDES = {"left": 0, "first": 0, "right": 1, "second": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignOptions:
    """What a person says of a file that the file does not say itself.

    `annotator` is who judged where no name stands; `unrated` takes the comparisons alone;
    `prompt_field` and `completion_fields` name the columns, `questions` what each one asks.
    """

    annotator: str | None = None
    simulated: bool = False
    unrated: bool = False
    prompt_field: str | None = None
    completion_fields: tuple[str, ...] = ()
    questions: Mapping[str, AnswerKind] = field(default_factory=dict)
    user_names: Mapping[str, str] = field(default_factory=dict)

    def named(self, user: str | None, where: str) -> str:
        """The rater of a judgement; DataError when neither file nor options name one."""
        name = user or self.annotator
        if not name:
            raise DataError(f"{where}: nobody is named as the rater; give --annotator NAME")
        return name


@dataclass(slots=True, kw_only=True)
class Rows:
    """The rows of ours that one foreign row makes, and what of it made none."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What was judged: the completions with the names that answers call them by."""

    prompt: PromptContent
    names: tuple[str, ...]
    texts: tuple[str, ...]

    def row(self, item: str | None) -> Row:
        """The part of a row of ours that says what was judged."""
        row: Row = {"prompt": self.prompt, "completions": list(self.texts)}
        return row if item is None else row | {"item": item}

    def place(self, word: Any) -> int | None:
        """The completion that a word names: by its name, number, letter or side; None for none."""
        plain = plain_word(word)
        for index, name in enumerate(self.names):
            if plain == plain_word(name):
                return index
        if plain in _SIDES and len(self.names) == 2:
            return _SIDES[plain]
        found = re.fullmatch(r"(?:[a-z]*?)(\d+)", plain) or _lettered(plain)
        if found is None:
            return None
        mark = found.group(1)
        return self._numbered(int(mark) if mark.isdecimal() else ord(mark) - ord("a") + 1)

    def _numbered(self, number: int) -> int | None:
        """The completion whose name ends in a number, or the so-manieth where none of them does."""
        marks = [re.search(r"(\d+)$", plain_word(name)) for name in self.names]
        if all(marks):
            numbers = [int(mark.group(1)) for mark in marks if mark]
            return numbers.index(number) if number in numbers else None
        return number - 1 if 1 <= number <= len(self.names) else None


def _lettered(plain: str) -> re.Match[str] | None:
    prefix = rf"(?:{_COMPLETION_WORDS})?"
    return re.fullmatch(prefix + r"([a-i])", plain)


def plain_word(word: Any) -> str:
    """A name without case, blanks and punctuation: `Response-1` and `response_1` are one."""
    return re.sub(r"[^a-z0-9]+", "", str(word).lower())


def shown_of(fields: Mapping[str, Any], where: str, options: ForeignOptions) -> Shown:
    """Prompt and completions among the fields of a record, by their names.

    DataError, naming the fields there are, when it cannot be told which is which.
    """
    prompts, wanted = _chosen_fields(fields, options)
    completions = {name: fields[name] for name in wanted if fields[name] is not None}
    listed = [value for value in completions.values() if isinstance(value, list)]
    if len(completions) == 1 and listed:
        names, texts = _listed(listed[0])
    else:
        names, texts = list(completions), list(completions.values())
    if not prompts or not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"{where}: fields {', '.join(fields) or 'none'}: cannot tell prompt and completions; "
            "give --prompt_field NAME and --completion_fields NAME,NAME"
        )
    return Shown(prompt=_prompt(fields, prompts), names=tuple(names), texts=tuple(texts))


def _chosen_fields(
    fields: Mapping[str, Any], options: ForeignOptions
) -> tuple[list[str], list[str]]:
    named = [*([options.prompt_field] if options.prompt_field else []), *options.completion_fields]
    for name in named:
        if name not in fields:
            raise ConfigError(f"no field {name!r} in the file{nearest_hint(name, fields)}")
    prompts = [options.prompt_field] if options.prompt_field else [
        name for name in fields if _PROMPTS.fullmatch(plain_word(name)) and fields[name]
    ]  # fmt: skip
    completions = list(options.completion_fields) or [
        name for name in fields if _COMPLETIONS.fullmatch(plain_word(name)) and name not in prompts
    ]
    return prompts, completions


def _prompt(fields: Mapping[str, Any], names: Sequence[str]) -> PromptContent:
    values = [fields[name] for name in names]
    if len(values) == 1 and isinstance(values[0], list):
        return [{"role": turn["role"], "content": turn["content"]} for turn in values[0]]
    return "\n\n".join(str(value) for value in values)


def _listed(values: list[Any]) -> tuple[list[str], list[Any]]:
    """Completions given as a list, of texts or of objects with an id and a text."""
    names, texts = [], []
    for number, value in enumerate(values, 1):
        if isinstance(value, Mapping):
            names.append(str(value.get("id", number)))
            texts.append(
                next((value[key] for key in ("body", "text", "html") if key in value), None)
            )
        else:
            names.append(str(number))
            texts.append(value)
    return names, texts


class Said:
    """One rater's answers to one record, as the values of a row of ours."""

    def __init__(self, shown: Shown, where: str, options: ForeignOptions) -> None:
        self._shown = shown
        self._where = where
        self._options = options
        self._rationales: list[str] = []
        self.values: Row = {}

    def take(self, question: str, value: Any, kind: AnswerKind | None = None) -> None:
        """Note an answer; DataError when it cannot be told what it says."""
        found = self._options.questions.get(question) or kind or self._kind(question, value)
        known = {
            "verdict": self._verdict,
            "ranking": self._ranking,
            "rating": self._rating,
            "flag": self._flag,
            "rewrite": self._rewrite,
            "rationale": self._rationale,
        }
        if found != "ignore":
            known[found](question, value)

    def row(self) -> Row:
        """The values that were noted."""
        values = dict(self.values)
        if self._rationales:
            values["rationale"] = "\n".join(self._rationales)
        return values

    def _kind(self, question: str, value: Any) -> AnswerKind:
        count = len(self._shown.texts)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return "rating"
        if isinstance(value, list) and value:
            if isinstance(value[0], Mapping) and "rank" in value[0]:
                return "ranking"
            if count > 1 and {self._shown.place(word) for word in value} == set(range(count)):
                return "ranking"
            if count == 1 and all(isinstance(word, str) for word in value):
                return "flag"
        if isinstance(value, str):
            if count == 2 and self._sign(value) is not None:
                return "verdict"
            if _RATIONALES.search(plain_word(question)):
                return "rationale"
            if _REWRITES.search(plain_word(question)):
                return "rewrite"
            if count == 1 and len(value) <= 80 and "\n" not in value:
                return "flag"
        raise DataError(
            f"{self._where}: question {question!a} says {ascii(value)[:60]}: cannot tell what that "
            f"is; give --question {question}=KIND ({', '.join(ANSWER_KINDS)})"
        )

    def _sign(self, word: str) -> tuple[int, bool] | None:
        """The verdict that a word says of two completions, and whether both are bad."""
        plain = plain_word(word)
        if plain in _TIES or plain in _BOTH_BAD:
            return 0, plain in _BOTH_BAD
        words = re.findall(r"[a-z0-9_\-]+", word.lower())
        degree = next((_DEGREES[one] for one in words if one in _DEGREES), 1)
        rest = [one for one in words if one not in _DEGREES and one not in ("is", "better", "the")]
        place = self._shown.place(" ".join(rest))
        return None if place is None else ((-degree, degree)[place], False)

    def _verdict(self, question: str, value: Any) -> None:
        sign = self._sign(str(value)) if len(self._shown.texts) == 2 else None
        if sign is None:
            raise self._unknown(question, value, "which of two completions is better")
        self.values["verdict"] = sign[0]
        if sign[1]:
            self.values["both_bad"] = True

    def _ranking(self, question: str, value: Any) -> None:
        ranks: dict[int | None, int] = {}
        for number, one in enumerate(value, 1):
            named, rank = (one["value"], one["rank"]) if isinstance(one, Mapping) else (one, number)
            for name in named if isinstance(named, list) else [named]:
                ranks[self._shown.place(name)] = rank
        if set(ranks) != set(range(len(self._shown.texts))):
            raise self._unknown(question, value, "a rank for every completion")
        self.values["ranking"] = [ranks[index] for index in range(len(self._shown.texts))]

    def _rating(self, question: str, value: Any) -> None:
        criterion, place = self.subject(question)
        if place is None or isinstance(value, bool) or not isinstance(value, int | float):
            raise self._unknown(question, value, "a rating of one completion")
        empty = [None] * len(self._shown.texts)
        self.values.setdefault("ratings", {}).setdefault(criterion, empty)[place] = value

    def _flag(self, question: str, value: Any) -> None:
        _, place = self.subject(question)
        if place is None:
            raise self._unknown(question, value, "flags of one completion")
        words = value if isinstance(value, list) else [value]
        flags = self.values.setdefault("flags", [[] for _ in self._shown.texts])
        flags[place] += [str(word) for word in words]

    def flag_of(self, completion: Any, flag: str) -> None:
        """Note a flag of the completion of that name."""
        place = self._shown.place(completion)
        if place is None:
            raise self._unknown(flag, completion, "the name of a completion")
        self.values.setdefault("flags", [[] for _ in self._shown.texts])[place].append(flag)

    def _rewrite(self, question: str, value: Any) -> None:
        self.values["rewrite"] = "\n".join(value) if isinstance(value, list) else str(value)
        if len(self._shown.texts) == 1:
            self.values["rewrite_of"] = 0

    def _rationale(self, question: str, value: Any) -> None:
        self._rationales.append("\n".join(value) if isinstance(value, list) else str(value))

    def subject(self, question: str) -> tuple[str, int | None]:
        """What a question asks, and of which completion: `clarity-2` is clarity of the second."""
        if len(self._shown.texts) == 1:
            return question, 0
        for index, name in enumerate(self._shown.names):
            left = re.sub(rf"[-_ ]*{re.escape(name)}[-_ ]*", "", question, flags=re.IGNORECASE)
            if left != question:
                return left or "rating", index
        found = re.fullmatch(r"(.*?)[-_ ]*(\d+|[a-i])", question, flags=re.IGNORECASE)
        if found is None or (found.group(2).isalpha() and found.group(0)[-2:-1].isalpha()):
            return question, self._shown.place(question)
        return found.group(1) or "rating", self._shown.place(found.group(2))

    def _unknown(self, question: str, value: Any, wanted: str) -> DataError:
        return DataError(
            f"{self._where}: question {question!a} says {ascii(value)[:60]}, where {wanted} is "
            f"wanted; completions are called {', '.join(self._shown.names)}"
        )
