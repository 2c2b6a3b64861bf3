"""Simulated raters over a known truth, for trying the loop without people.

The truth is a utility in [0, 1] of a completion for a prompt: the weighted mean of seven terms,
each in [0, 1], each a pure function of the texts. A simulated rater sees the difference of two
utilities through noise and bias of their own. All that they write is marked simulated.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rlhf.records import Annotator, Comparison, Prompt, PromptContent

Floats = NDArray[np.float64]

_STEM_LETTERS = 5
_WORD = re.compile(r"[a-z0-9']+")
_STOP_WORDS = frozenset(
    """
    a about after all am an and any are as at be been before best better but by can could did
    do does for from get give go good had has have help her him his how i if in into is it its
    just keep know last let like make many may me might mine more most much must my need new
    no not now of off on one or our out over please put say set shall she should so some tell
    than that the their them then there these they thing this those to too up us use very want
    was way we well were what when where which while who why will with without would write you
    your
    """.split()  # noqa: SIM905
)
_FILLER = re.compile(
    r"\W*(sure|certainly|of course|absolutely|great question|great|good question|ok|okay"
    r"|yes,? i can|as an? (ai|language|artificial)|i'?m an? (ai|language)|i'?m sorry|i'?m glad"
    r"|i am (an? (ai|language)|sorry)|here (is|are)|here'?s|thank you for asking|to answer"
    r"|the answer|you asked|answer:)\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"^\s*([-*+•]|#{1,6}|\d+[.)]|>)\s|\*\*|```|__|^\s*\w+:\s*$", re.MULTILINE)
_REASON = re.compile(
    r"\b(because|since|so that|so (it|they|you|the|he|she|we)|due to|thanks to|otherwise"
    r"|which (keeps|helps|prevents|makes|stops)"
    r"|(to|will|can|helps?|and) (keep|avoid|prevent|protect|stop))\b",
    re.IGNORECASE,
)
_END_MARK = re.compile(r"[.!?][\"')\]]*\s*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class UtilityWeights:
    """How much each term of the utility counts; `utility` divides by their sum.

    Among complete answers, saying why and giving a quantity weigh most: both are learned within
    a few hundred pairs, and neither is a matter of length. Being complete weighs more than
    either alone, or a policy would learn to write on until it has both and is cut.
    """

    on_topic: float = 0.10
    direct: float = 0.06
    reason: float = 0.20
    concrete: float = 0.20
    complete: float = 0.26
    fluent: float = 0.05
    concise: float = 0.13


def simulated_truth(
    prompt: Prompt | PromptContent,
    completion: str,
    ended: bool | None,
    *,
    weights: UtilityWeights | None = None,
) -> float:
    """The utility in [0, 1] of a completion; `ended` is False when the length limit cut it."""
    weights = weights or UtilityWeights()
    terms = utility_terms(prompt, completion, ended)
    parts: dict[str, float] = asdict(weights)
    return sum(parts[name] * terms[name] for name in parts) / sum(parts.values())


def utility_terms(
    prompt: Prompt | PromptContent, completion: str, ended: bool | None
) -> dict[str, float]:
    """Each term of the utility, in [0, 1], by the name of its weight."""
    asked = _last_turn(prompt)
    return {
        "on_topic": on_topic(asked, completion),
        "direct": direct(asked, completion),
        "reason": 1.0 if _REASON.search(completion) else 0.0,
        "concrete": 1.0 if re.search(r"\d", completion) else 0.0,
        "complete": 1.0 if ended is not False and _END_MARK.search(completion) else 0.0,
        "fluent": fluent(completion),
        "concise": concise(completion),
    }


def on_topic(prompt: str, completion: str) -> float:
    """The share of the prompt's content words that the completion takes up; half is enough."""
    wanted = _stems(prompt)
    if not wanted:
        return 1.0 if _stems(completion) else 0.0
    return min(1.0, 2 * len(wanted & _stems(completion)) / len(wanted))


def direct(prompt: str, completion: str) -> float:
    """1 without preamble and without markup, 1/2 with one of them, 0 with both or no words.

    A preamble is a filler ("Sure", "Great question", "As an AI") or the prompt said again.
    """
    words = _words(completion)
    if not words:
        return 0.0
    restated = len(words) >= 4 and words[:4] == _words(prompt)[:4]
    preamble = bool(_FILLER.match(completion)) or restated
    return 1.0 - 0.5 * preamble - 0.5 * bool(_MARKUP.search(completion))


def fluent(completion: str) -> float:
    """The share of distinct pairs of neighbouring words; 0 when a word stands thrice in a row."""
    words = _words(completion)
    if not words or any(
        one == two == three for one, two, three in zip(words, words[1:], words[2:], strict=False)
    ):
        return 0.0
    bigrams = list(pairwise(words))
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0


def concise(completion: str) -> float:
    """1 from 10 to 30 words, falling to 0 at 60; below, rising from 0 at 3 words to 1 at 10."""
    count = len(completion.split())
    return min(1.0, max(0.0, (count - 3) / 7), max(0.0, (60 - count) / 30))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRater:
    """A rater whose verdicts follow the truth through noise.

    What they feel is `sharpness` * (difference of utilities) + `side_bias` towards what is shown
    first + a Gaussian of standard deviation `noise`; in a share `lapse_rate` of items they
    pay no attention and answer at random.
    """

    name: str
    sharpness: float = 8.0
    noise: float = 1.0
    side_bias: float = 0.0
    lapse_rate: float = 0.0

    @property
    def annotator(self) -> Annotator:
        return Annotator(name=self.name, simulated=True)


DEFAULT_PANEL = (
    SimulatedRater(name="simulated-careful", noise=0.5),
    SimulatedRater(name="simulated-steady", noise=0.8, lapse_rate=0.02),
    SimulatedRater(name="simulated-first-sided", noise=0.9, side_bias=0.6, lapse_rate=0.02),
    SimulatedRater(name="simulated-hurried", noise=1.5, side_bias=0.2, lapse_rate=0.06),
    SimulatedRater(name="simulated-careless", noise=2.0, side_bias=-0.2, lapse_rate=0.15),
)
"""Five raters from nearly right to often wrong; two of them lean to a side."""

_VERDICT_LIMITS = (0.3, 1.2, 2.4)  # |feeling| up to which the verdict is 0, 1, 2; beyond it 3


def simulated_verdict(
    rater: SimulatedRater, comparison: Comparison, shown_order: Sequence[int], *, seed: int
) -> int:
    """The rater's verdict (-3..3, negative = `completions[0]` better), the same for equal input."""
    assert len(comparison.completions) == 2, "verdicts compare two"
    difference = _truth_of(comparison, 1) - _truth_of(comparison, 0)
    digest = hashlib.sha256(f"{seed}\n{rater.name}\n{comparison.item}".encode()).digest()
    chance = random.Random(int.from_bytes(digest))
    if chance.random() < rater.lapse_rate:
        return chance.randint(-3, 3)
    towards_shown_first = 1 if shown_order[0] == 1 else -1
    feeling = rater.sharpness * difference + rater.side_bias * towards_shown_first
    feeling += chance.gauss(0.0, rater.noise)
    strength = sum(abs(feeling) > limit for limit in _VERDICT_LIMITS)
    return strength if feeling > 0 else -strength


def panel_for(
    item: str, panel: Sequence[SimulatedRater], num_raters: int, *, seed: int
) -> list[SimulatedRater]:
    """The `num_raters` of a panel that rate an item: drawn by its name, so a rerun draws them
    again."""
    digest = hashlib.sha256(f"{seed}\npanel\n{item}".encode()).digest()
    return random.Random(int.from_bytes(digest)).sample(list(panel), num_raters)


def length_share(utilities: Sequence[float], lengths: Sequence[int]) -> float:
    """The largest share (R^2, 0 to 1) of the utilities' variance that length explains.

    The largest of a straight line, a parabola, and the means of up to ten bins of equal size;
    0 where the utilities do not vary.
    """
    values = np.asarray(utilities, dtype=np.float64)
    counts = np.asarray(lengths, dtype=np.float64)
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    if total == 0.0 or len(set(lengths)) < 2:
        return 0.0
    spread = (counts - counts.mean()) / counts.std()
    designs = [
        np.stack([spread**power for power in range(degree + 1)], axis=1) for degree in (1, 2)
    ]
    designs.append(_bins(counts, max(2, min(10, len(values) // 10))))
    return max(1 - _residual(design, values) / total for design in designs)


def _bins(counts: Floats, number: int) -> Floats:
    """One column a bin of equal share of the counts, [n, number], 1 where a count lies in it."""
    edges = np.quantile(counts, np.linspace(0, 1, number + 1)[1:-1])
    return np.eye(number)[np.searchsorted(edges, counts, side="right")]


def _residual(
    design: Floats,
    values: Floats,
) -> float:
    weights = np.linalg.lstsq(design, values, rcond=None)[0]
    return float(((values - design @ weights) ** 2).sum())


def _truth_of(comparison: Comparison, index: int) -> float:
    completion = comparison.completions[index]
    return simulated_truth(comparison.prompt, completion.text, completion.ended)


def _last_turn(prompt: Prompt | PromptContent) -> str:
    content = prompt.content if isinstance(prompt, Prompt) else prompt
    return content if isinstance(content, str) else content[-1]["content"]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _stems(text: str) -> set[str]:
    return {
        word[:_STEM_LETTERS] for word in _words(text) if word not in _STOP_WORDS and len(word) > 2
    }
