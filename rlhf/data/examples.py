"""What rows of a data set stand for: pairs, demonstrations, and completions with a label."""

from dataclasses import dataclass

from rlhf.data.cells import Row
from rlhf.records import Message, PromptContent


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A chosen and a rejected completion, and where the row stands.

    `rejected_prompt` is set only where the two transcripts part before their last turn.
    `p_chosen` is how sure it is that chosen is the better one (0.5 is a tie; None: the row does
    not say), `weight` (0 or more) what the pair counts in a loss, `group` the prompt whose
    ranking it is of, `criteria` p_chosen by criterion, `votes` what each rater said of it, and
    `chosen_shown_first` the share of the votes at which chosen stood first on the screen.
    """

    prompt: PromptContent
    chosen: str
    rejected: str
    place: str
    chosen_ended: bool | None = None
    rejected_ended: bool | None = None
    rejected_prompt: PromptContent | None = None
    p_chosen: float | None = None
    margin: float | None = None
    judgement_ids: tuple[str, ...] = ()
    weight: float | None = None
    group: str | None = None
    criteria: dict[str, float] | None = None
    votes: tuple[Row, ...] = ()
    chosen_shown_first: float | None = None
    item: str | None = None
    simulated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """A prompt and the completion to imitate; `messages` when every assistant turn counts."""

    prompt: PromptContent
    completion: str
    place: str
    ended: bool | None = None
    messages: tuple[Message, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaired:
    """A prompt and a completion with its label: true for a desirable one, false for another.

    `weight` (0 or more; None: the row does not say) is what it counts in a loss,
    `judgement_ids` are the judgements behind the label; `from_pair` when it is a side of a pair.
    """

    prompt: PromptContent
    completion: str
    label: bool
    place: str
    ended: bool | None = None
    weight: float | None = None
    judgement_ids: tuple[str, ...] = ()
    item: str | None = None
    simulated: bool = False
    from_pair: bool = False
