"""The human data that the reward benchmarks read, from a folder that is no part of the project.

`hh-helpful-train.jsonl.gz` and `hh-helpful-eval.jsonl.gz` hold HH transcripts (Anthropic's
hh-rlhf, MIT), `bigbench_hhh/` the task files of BIG-bench's comparisons (Apache-2.0).
"""

import json
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.data.columns import Columns, reward_columns
from rlhf.data.formats import Pair, preference_pairs
from rlhf.data.sources import load_rows
from rlhf.data.tokenization import Renderer
from rlhf.evaluation.statistics import clustered_bootstrap
from rlhf.models.loading import load_tokenizer
from rlhf.records import content_hash

MODEL = "smollm2-135m-instruct-q4"
DATA = Path(__file__).parent.parent.parent / "shared" / "data"


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs with their tokenised transcripts, place by place."""

    pairs: list[Pair]
    columns: Columns

    def transcripts(self) -> list[list[int]]:
        """The ids of all chosen transcripts, then of all rejected ones."""
        chosen = [row["chosen_ids"] for row in self.columns]
        return chosen + [row["rejected_ids"] for row in self.columns]

    def prompts(self) -> list[str]:
        return [content_hash(pair.prompt) for pair in self.pairs]

    def gaps(self, scores: list[float]) -> np.ndarray:
        """Score of chosen less that of rejected, [N], from scores of `transcripts()`."""
        chosen, rejected = np.array(scores).reshape(2, -1)
        return chosen - rejected

    def length_gaps(self) -> np.ndarray:
        """How many characters chosen is longer than rejected, [N]."""
        return np.array([len(pair.chosen) - len(pair.rejected) for pair in self.pairs])


def add_data_options(parser: ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder with the HH files and bigbench_hhh/"
    )
    parser.add_argument(
        "--work", type=Path, help="folder that keeps what was measured, to go on from"
    )


def renderer() -> Renderer:
    return Renderer(load_tokenizer(MODEL))


def hh_pairs(data: Path, split: str, rendered: Renderer, max_length: int | None = None) -> Pairs:
    """The pairs of a split ("train" or "eval") with both transcripts within `max_length` tokens."""
    return read_pairs(data / f"hh-helpful-{split}.jsonl.gz", rendered, max_length)


def hhh_pairs(data: Path, rendered: Renderer, folder: Path) -> dict[str, Pairs]:
    """BIG-bench's comparisons by subset; `folder` gets them as HH transcripts."""
    found = {}
    for path in sorted((data / "bigbench_hhh").glob("*.json")):
        rows = [_transcripts(example) for example in json.loads(path.read_text())["examples"]]
        target = folder / f"{path.stem}.jsonl"
        target.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found[f"hhh {path.stem}"] = read_pairs(target, rendered)
    return found


def _transcripts(example: dict[str, Any]) -> dict[str, str]:
    answers = sorted(example["target_scores"], key=lambda text: -example["target_scores"][text])
    asked = f"\n\nHuman: {example['input']}\n\nAssistant: "
    return {"chosen": asked + answers[0], "rejected": asked + answers[1]}


def read_pairs(path: Path, rendered: Renderer, max_length: int | None = None) -> Pairs:
    dataset = load_rows(str(path))
    columns, kept = reward_columns(preference_pairs(dataset), rendered, max_length, dataset.losses)
    return Pairs(pairs=kept, columns=columns)


def draw(pairs: Pairs, number: int, seed: int = 0) -> Pairs:
    """`number` pairs in random order: what is trained on, and the order of it."""
    order = np.random.default_rng(seed).permutation(len(pairs.pairs))[:number]
    return Pairs(
        pairs=[pairs.pairs[place] for place in order],
        columns=[pairs.columns[place] for place in order],
    )


def right(gaps: np.ndarray) -> np.ndarray:
    """1 where the gap is above 0, one half where it is 0."""
    return np.where(gaps == 0, 0.5, gaps > 0)


def accuracy(gaps: np.ndarray, prompts: list[str]) -> dict[str, float]:
    """The share of gaps above 0 with its interval, clustered by prompt."""
    return clustered_bootstrap(right(gaps), prompts).as_dict()
