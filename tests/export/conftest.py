"""A lineage of tiny stages, run once through the real command line: what the tests export."""

import json
import shutil
from pathlib import Path

import pytest

from rlhf.cli import main

QUICK = ["--max_steps", "3", "--per_device_train_batch_size", "2", "--learning_rate", "1e-2"]
LORA = ["--use_peft", "--lora_r", "4", "--lora_target_modules", "all-linear"]


@pytest.fixture(scope="session")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stages: sft (all weights), dpo and reward (adapters on it). Do not write."""
    root = tmp_path_factory.mktemp("trained")
    question = [[{"role": "user", "content": f"question {number}?"}] for number in range(24)]
    demos = [{"prompt": one, "completion": "yes."} for one in question]
    pairs = [{"prompt": one, "chosen": "yes.", "rejected": "no, not"} for one in question]
    for name, rows in (("demos", demos), ("pairs", pairs)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{name}.jsonl").write_text(text)
    run(root, "sft", tiny_model, "demos")
    run(root, "dpo", root / "sft", "pairs", *LORA)
    run(root, "reward", root / "sft", "pairs", *LORA)
    return root


def run(root: Path, verb: str, model: Path, data: str, *options: str) -> None:
    words = [verb, "--model_name_or_path", str(model), "--dataset_name", f"{root / data}.jsonl"]
    assert main([*words, "--output_dir", str(root / verb), *QUICK, *options, "--debug"]) == 0


@pytest.fixture
def stages(trained: Path, tmp_path: Path) -> Path:
    """A copy of the stages, as if they had been trained there, that a test may change."""
    folder = tmp_path / "copied"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    for path in folder.glob("*/*.json"):
        path.write_text(path.read_text().replace(str(trained), str(folder)))
    return folder
