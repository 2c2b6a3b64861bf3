"""The completions of a run: every one in Parquet, some of each rollout in the trackers' tables."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.manifest import make_folder
from rlhf.records import PromptContent
from rlhf.training.rollout_log.record import RolloutRecord
from rlhf.training.saving import disk_errors

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

FOLDER_NAME = "completions"
_PART = re.compile(r"rollout-(\d{6,})(-rank-\d+)?\.parquet")


class CompletionLog:
    """Parquet parts under OUTPUT/completions, one a rollout and rank, each written whole.

    A part's name is its rollout's number, so a rollout that a resumed run makes again replaces
    the part that it wrote before. Columns: `rollout`, `prompt` (text, or the messages as JSON),
    `completion`, `ended`, `num_tokens`, `score`, `score/SOURCE` for each source, `kl` (nats),
    `reward` (summed) and `advantage` (the mean over its tokens), as far as they are known.
    """

    def __init__(self, output_dir: str | Path, *, rank: int = 0) -> None:
        self.folder = Path(output_dir) / FOLDER_NAME
        self._suffix = f"-rank-{rank}" if rank else ""

    def write(self, rollout_number: int, record: RolloutRecord) -> Path:
        """Put this rank's part of a rollout on disk; StageError when it cannot be written."""
        path = self.folder / f"rollout-{rollout_number:06d}{self._suffix}.parquet"
        staged = path.with_suffix(".parquet.tmp")
        with disk_errors(self.folder):
            make_folder(self.folder)
            try:
                completion_table(rollout_number, record).to_parquet(staged, index=False)
                os.replace(staged, path)
            finally:
                staged.unlink(missing_ok=True)
        return path

    def keep_before(self, rollout_number: int) -> None:
        """Remove the parts from `rollout_number` on: of a longer run that was here before.

        Rank 0 calls it when a run begins, with the number of the rollout that it makes first.
        """
        for path in self.folder.glob("rollout-*.parquet*"):
            match = _PART.match(path.name)
            if match and int(match.group(1)) >= rollout_number:
                path.unlink(missing_ok=True)

    def table(self, record: RolloutRecord, *, step: int, limit: int) -> "pandas.DataFrame":
        """The first `limit` completions of a rollout for a tracker, with the optimizer step."""
        frame = completion_table(0, record).head(limit)
        frame.insert(0, "step", step)
        return frame.drop(columns="rollout")


def completion_table(rollout_number: int, record: RolloutRecord) -> "pandas.DataFrame":
    """A row a completion; see CompletionLog for the columns."""
    import pandas

    columns: dict[str, Any] = {
        "rollout": [rollout_number] * len(record),
        "prompt": [_prompt_text(prompt) for prompt in record.prompts],
        "completion": [_whole(text) for text in record.completions],
        "ended": list(map(bool, record.ended)),
        "num_tokens": list(map(int, record.num_tokens)),
        "score": record.scores.tolist(),
    }
    columns |= {f"score/{name}": scores.tolist() for name, scores in record.source_scores.items()}
    columns["kl"] = record.kls.tolist()
    for name, values in (("reward", record.rewards), ("advantage", record.advantages)):
        if values is not None:
            columns[name] = values.tolist()
    noted = {name: each for name, each in record.noted_columns.items() if name not in columns}
    return pandas.DataFrame(columns | {name: _of_one_kind(each) for name, each in noted.items()})


def send_table(report_to: Sequence[str], frame: "pandas.DataFrame") -> None:
    """Show the table under `completions` in each tracker of `report_to` that has a run open."""
    if "wandb" in report_to:
        import wandb

        if wandb.run is not None:
            wandb.log({"completions": wandb.Table(dataframe=frame)})
    if "trackio" in report_to:
        import trackio

        if trackio.context_vars.current_run.get() is not None:
            trackio.log({"completions": trackio.Table(dataframe=frame)})


def _prompt_text(prompt: PromptContent) -> str:
    """A prompt in one column, whether it is text or messages."""
    return _whole(prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False))


def _of_one_kind(values: Sequence[Any]) -> list[Any]:
    """Numbers as they are, else all as text: Parquet wants one kind in a column."""
    if all(value is None or isinstance(value, int | float) for value in values):
        return list(values)
    return [None if value is None else _whole(str(value)) for value in values]


def _whole(text: str) -> str:
    """The text with half characters replaced, which Parquet refuses."""
    return text.encode(errors="replace").decode()
