"""Who says what a completion is worth: sources of rewards, or a judge that compares two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import isfinite
from typing import Any, Protocol

from torch import Tensor

from rlhf.data.progress import progress
from rlhf.errors import StageError
from rlhf.training.online_dpo.judges import Judge, Verdict, ask_both_orders
from rlhf.training.online_dpo.samples import PromptSamples, Sample
from rlhf.training.ppo.rollout import Noted
from rlhf.training.rewards.episodes import Episodes, ScoredEpisodes
from rlhf.training.rewards.scoring import Reduce, RewardSources

_AT_ONCE = 64  # completions that are scored between two moves of the bar
MAX_FAILED = 0.5
"""Share of a judge's answers that may be none before the run stops."""


@dataclass(slots=True, kw_only=True)
class Labelled:
    """What labelling said beside the scores: `warnings` for people, `counts` to be summed over
    processes, the functions' own `noted` metrics and columns.
    """

    warnings: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    noted: Noted = field(default_factory=Noted)


class Labeller(Protocol):
    """Fills the score of every sample; equal scores are ties."""

    has_scale: bool
    """Whether scores of one round can be compared with those of another."""
    simulated: bool

    def label(
        self, prompts: Sequence[PromptSamples], task: str, extras: Mapping[str, Any]
    ) -> Labelled:
        """Give every sample of this process its score; every process calls."""

    def provenance(self) -> list[dict[str, Any]]:
        """Who labels, for the manifest."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers from round to round, as JSON can hold it."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""


class RewardLabeller:
    """The sources of rewards: reward models that passed their gate, functions, or several."""

    has_scale = True

    def __init__(self, sources: RewardSources, reduce: Reduce | None = None) -> None:
        self.sources = sources
        self.reduce = reduce
        self.simulated = sources.simulated

    def label(
        self, prompts: Sequence[PromptSamples], task: str, extras: Mapping[str, Any]
    ) -> Labelled:
        """The total score of each sample, and each source's own. Errors as `RewardSources.score`.

        Running statistics take in a whole round at once, so that all its scores are of one scale;
        otherwise a part at a time is scored, and the bar moves.
        """
        learns = self.sources.options.reward_normalization == "running"
        count = sum(len(one.samples) for one in prompts)
        labelled, done = Labelled(), 0
        extras = dict(extras) | {
            "log_metric": labelled.noted.metric,
            "log_extra": lambda name, values: labelled.noted.columns.setdefault(name, []).extend(
                values
            ),
        }
        with progress(task, count, "completion") as advance:
            for part in _parts(prompts, count if learns else _AT_ONCE):
                episodes = episodes_of(part, extras)
                scored = self.sources.score(episodes, reduce=self.reduce, update=learns)
                labelled.warnings += [
                    each for each in scored.warnings if each not in labelled.warnings
                ]
                _take(part, scored)
                done += len(episodes)
                advance(done, count)
        return labelled

    def provenance(self) -> list[dict[str, Any]]:
        """Each source, with its weight and gate."""
        return self.sources.provenance()

    def state_dict(self) -> dict[str, Any]:
        """The running statistics of the sources."""
        return self.sources.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the statistics of an earlier round."""
        self.sources.load_state_dict(state)


class JudgeLabeller:
    """A judge that compares two completions; a sample's score is the share of others it beats.

    Every two samples of a prompt are shown in both orders. A verdict that turns with the order is
    a tie, which is half a win for each, as is a pair without an answer.
    """

    has_scale = False
    simulated = False

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def label(
        self, prompts: Sequence[PromptSamples], task: str, extras: Mapping[str, Any]
    ) -> Labelled:
        """The share of wins of each sample; StageError when most of the answers are none."""
        meetings = [
            (one, first, second)
            for one in prompts
            for first, second in combinations(range(len(one.samples)), 2)
        ]
        asked = [one.prompt for one, _, _ in meetings]
        pairs = [(one.samples[i].text, one.samples[j].text) for one, i, j in meetings]
        with progress(task, 2 * len(pairs), "verdict") as advance:
            verdicts = ask_both_orders(self.judge, asked, pairs, advance)
        for one in prompts:
            for sample in one.samples:
                sample.score = 0.0
        for (one, i, j), verdict in zip(meetings, verdicts, strict=True):
            one.samples[i].score += verdict.first_wins
            one.samples[j].score += 1 - verdict.first_wins
        for one in prompts:
            for sample in one.samples:
                # Halves add up exactly; shares would not, and as many wins were no tie.
                sample.score /= max(len(one.samples) - 1, 1)
                sample.scores = {self.judge.name: sample.score}
        return self._labelled(verdicts)

    def _labelled(self, verdicts: Sequence[Verdict]) -> Labelled:
        failures = [reason for one in verdicts for reason in one.failures]
        if len(failures) > MAX_FAILED * 2 * len(verdicts):
            raise StageError(
                f"the judge {self.judge.name!r} gave no answer to {len(failures)} of "
                f"{2 * len(verdicts)} questions (first: {failures[0]}); mend it, and run the same "
                "command again: it goes on from the last checkpoint"
            )
        counts = {
            "num_verdicts": len(verdicts),
            "num_order_ties": sum(one.turned for one in verdicts),
            "num_judge_failures": len(failures),
        }
        words = f"the judge {self.judge.name!r} gave no answer to {len(failures)} questions (first"
        return Labelled(warnings=[f"{words}: {failures[0]})"] if failures else [], counts=counts)

    def provenance(self) -> list[dict[str, Any]]:
        """The judge by name and hash."""
        return [self.judge.as_dict()]

    def state_dict(self) -> dict[str, Any]:
        """Nothing: every comparison stands by itself."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to go on from."""


def episodes_of(prompts: Sequence[PromptSamples], extras: Mapping[str, Any]) -> Episodes:
    """The samples of some prompts as reward functions are given them."""
    pairs = [(one, sample) for one in prompts for sample in one.samples]
    names = [name for name in (pairs[0][0].row if pairs else {}) if name != "prompt"]
    return Episodes(
        prompts=[one.prompt for one, _ in pairs],
        completions=[sample.text for _, sample in pairs],
        completion_ids=[sample.ids for _, sample in pairs],
        ended=[sample.ended for _, sample in pairs],
        columns={name: [one.row[name] for one, _ in pairs] for name in names},
        extras=extras,
    )


def _take(prompts: Sequence[PromptSamples], scored: ScoredEpisodes) -> None:
    samples: list[Sample] = [sample for one in prompts for sample in one.samples]
    totals: Tensor = scored.totals
    for index, (sample, total) in enumerate(zip(samples, totals.tolist(), strict=True)):
        sample.score = total
        sample.scores = {
            name: value if isfinite(value := float(values[index])) else None
            for name, values in scored.by_source.items()
        }


def _parts(prompts: Sequence[PromptSamples], size: int) -> list[list[PromptSamples]]:
    """The prompts in parts of about `size` completions, a prompt's own together."""
    parts: list[list[PromptSamples]] = [[]]
    held = 0
    for one in prompts:
        if held >= size:
            parts.append([])
            held = 0
        parts[-1].append(one)
        held += len(one.samples)
    return parts
