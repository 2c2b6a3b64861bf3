"""Prompts that are sampled from, read once for the stages and the doctor: which of them can be."""

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.data.columns import refuse_no_rows, rendered
from rlhf.data.doctor.examination import Side, examine
from rlhf.data.doctor.findings import Finding
from rlhf.data.doctor.reporting import print_inputs
from rlhf.data.formats import Demo, placed_prompts
from rlhf.data.losses import PROMPT_ADVICE, DataLosses
from rlhf.data.sources import LoadedDataset
from rlhf.data.tokenization import Renderer
from rlhf.records import PromptContent


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReading:
    """The prompts that can be sampled from, in the order of the data, and the doctor's findings.

    `renderer` is the one that they were read with; `dataset` has counted what was lost.
    """

    dataset: LoadedDataset
    renderer: Renderer
    prompts: Sequence[PromptContent]
    findings: Sequence[Finding]

    def report(self, max_loss: float) -> None:
        """Log the format and the findings; GateError when more than `max_loss` is lost."""
        print_inputs([self.dataset], "prompts", self.findings)
        self.dataset.losses.refuse_above(max_loss, PROMPT_ADVICE)


def read_prompts(
    dataset: LoadedDataset, renderer: Renderer, max_new_tokens: int, context: int | None
) -> PromptReading:
    """The prompts of `dataset` with room for `max_new_tokens` in `context` (None: no limit).

    Those that cannot be rendered or have no such room are dropped and counted; DataError when
    none is left.
    """
    rows = [
        Demo(prompt=prompt, completion="", place=place) for place, prompt in placed_prompts(dataset)
    ]
    losses = dataset.losses
    kept = [row for row in rows if prompt_fits(row, renderer, max_new_tokens, context, losses)]
    refuse_no_rows(kept, dataset.name, losses, PROMPT_ADVICE)
    return PromptReading(
        dataset=dataset,
        renderer=renderer,
        prompts=[row.prompt for row in kept],
        findings=examine([dataset], Side(kept), Side(), renderer),
    )


def prompt_fits(
    row: Demo, renderer: Renderer, max_new_tokens: int, context: int | None, losses: DataLosses
) -> bool:
    """Whether a completion can follow a prompt; when none can, the row is dropped and counted."""
    ids = rendered(lambda row, renderer: renderer.prompt_ids(row.prompt), row, renderer, losses)
    if ids is None:
        return False
    if not ids:
        losses.drop("no prompt tokens to condition on", row.place)
        return False
    if context is not None and len(ids) + max_new_tokens > context:
        reason = f"no room for {max_new_tokens} tokens in the model's context of {context}"
        losses.drop(reason, row.place)
        return False
    return True
