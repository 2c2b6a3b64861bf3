"""Two processes learn what one does from the same pairs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from rlhf.cli import main
from tests.processes import run_ranks
from tests.training.conftest import metrics_of, read_json, write_rows

COMMON = [
    *("--learning_rate", "1e-3", "--max_steps", "6", "--save_steps", "4", "--logging_steps", "1"),
    *(
        "--per_device_train_batch_size",
        "2",
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "2",
        "--per_device_eval_batch_size",
        "2",
    ),
]
LORA = ["--use_peft", "--lora_target_modules", "all-linear"]
SAMPLED = ["--num_kl_prompts", "3", "--kl_max_completion_length", "6"]
CASES = {
    "soft labels and weights": ("weighted", [*LORA, "--precompute_ref_log_probs", "true"]),
    "rankings, sampled": ("ranked", [*LORA, *SAMPLED]),
}
CLOSE = 1e-5
OF_TOKENS = ("entropy", "logits/chosen", "logits/rejected", "mean_token_accuracy")


def write_data(folder: Path, kind: str, numbers: range) -> Path:
    """Prompts with one pair each, or with the three pairs of a ranking."""
    texts = ["yes, that is it", "perhaps", "no"]
    orders = ((0, 1), (0, 2), (1, 2)) if kind == "ranked" else ((0, 2),)
    rows = []
    for number in numbers:
        for better, worse in orders:
            row = {
                "prompt": [{"role": "user", "content": f"question {number}?"}],
                "chosen": f"{texts[better]} {number}.",
                "rejected": f"{texts[worse]} {number}.",
            }
            if kind == "weighted":
                row |= {"p_chosen": 0.6 + 0.4 * (number % 3) / 2, "weight": 1.0 + number % 4}
            if kind == "ranked":
                row |= {"group": str(number)}
            rows.append(row)
    return write_rows(folder / f"pairs-{numbers.start}.jsonl", rows)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case, tiny_model, tmp_path):
    kind, options = CASES[case]
    # Enough for one epoch, at whose end transformers gives two processes some rows twice, and as
    # many to measure on as fill the batches of both.
    data = write_data(tmp_path, kind, range(24 if kind == "ranked" else 56))
    held_out = write_data(tmp_path, kind, range(100, 104))
    words = ["dpo", "--model_name_or_path", str(tiny_model), "--dataset_name", str(data)]
    words += ["--eval_dataset_name", str(held_out), *COMMON, *options]
    one, two = tmp_path / "one", tmp_path / "two"
    alone = ["--output_dir", str(one), "--gradient_accumulation_steps", "4"]
    assert main([*words, *alone, "--debug"]) == 0
    shared = ["--output_dir", str(two), "--gradient_accumulation_steps", "2"]
    run_two(tmp_path / "said", *words, *shared)

    (name,) = [path.name for path in one.glob("*model.safetensors")]
    assert_close(load_file(one / name), load_file(two / name))
    logs = [read_json(folder / "log.json") for folder in (one, two)]
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    for there, here in zip(*logs, strict=True):
        assert compared(there, kind) == pytest.approx(compared(here, kind), abs=CLOSE, rel=1e-4)
    assert metrics_of(one)["eval_loss"] == pytest.approx(metrics_of(two)["eval_loss"], abs=CLOSE)
    if "--precompute_ref_log_probs" in options:
        (mine,), (theirs,) = (list((each / "reference").iterdir()) for each in (one, two))
        assert mine.name == theirs.name  # the key does not know how many processes there are
        assert np.load(mine)["logps"] == pytest.approx(np.load(theirs)["logps"], abs=CLOSE)

    before = (two / name).read_bytes()
    (two / "manifest.json").unlink()
    shutil.rmtree(two / "checkpoint-6")
    said = run_two(tmp_path / "said", *words, *shared)
    assert f"continuing from {two / 'checkpoint-4'}" in said
    assert (two / name).read_bytes() == before


def run_two(folder: Path, *words: str) -> str:
    """Run `rlhf WORDS` in two processes; what they said on standard error."""
    ended = run_ranks(2, folder, main, list(words))
    said = "".join(one.stderr for one in ended)
    assert [one.exit_code for one in ended] == [0, 0], said
    return said


def assert_close(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert float((weight - other[name]).abs().max()) < CLOSE, name


def compared(row: dict, kind: str) -> dict:
    """What of a row of the log is the same: not the share of an epoch, which two processes round
    up to whole batches of both. TRL's metrics of a row are means over batches, of each process
    or of both: what is a mean over tokens, or over a ranking's unequal batches, has other weights.
    """
    if kind == "ranked" and "loss" in row:
        return {key: row[key] for key in ("loss", "grad_norm", "learning_rate", "num_tokens")}
    ends = ("_runtime", "_per_second", "epoch", *OF_TOKENS)
    return {key: value for key, value in row.items() if not key.endswith(ends)}
