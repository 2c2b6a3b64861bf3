"""One side of the reward benchmarks: a reward model trained in a process of its own, and measured.

    python benchmarks/reward_training.py RUN.json RESULT.json

`ours` is the reward stage's trainer with shared prompts, `stock` is TRL's RewardTrainer as it
comes, loading the model by itself. Both get the same settings and tokenised rows, in file order.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCORED_TOKENS = 2048
"""Tokens of a batch that is scored, padding included."""

_BEFORE_IMPORT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one process trains. `rows` names a file with `train` and `scored` (see `write_rows`).

    The first of a work folder's runs writes its fresh LoRA and head to `weights`; the others
    begin with those. `options` are more of the reward stage's settings.
    """

    side: str
    rows: str
    weights: str | None = None
    dtype: str = "bfloat16"
    num_steps: int
    options: dict[str, Any] = field(default_factory=dict)


SETTINGS: dict[str, Any] = {
    "model_name_or_path": "smollm2-135m-instruct-q4",
    "use_peft": True,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "lora_target_modules": "all-linear",
    "learning_rate": 2.0e-4,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "train_sampling_strategy": "sequential",
    "eval_fraction": 0.0,
    "save_strategy": "no",
    "logging_steps": 10,
    "seed": 0,
}


def write_rows(path: Path, train: Sequence[dict], scored: dict[str, Sequence[list[int]]]) -> None:
    """What runs read: tokenised pairs to train on, and lists of transcripts' ids to score."""
    path.write_text(json.dumps({"train": list(train), "scored": scored}))


def measure(run: Run, folder: Path, name: str) -> dict[str, Any]:
    """The result of `run`, made in a fresh process; one that is in `folder` already is read."""
    return measure_with(__file__, run, folder, name)


def measure_with(script: str, run: Any, folder: Path, name: str) -> dict[str, Any]:
    """The same by any `script` that takes the files of a run (a dataclass) and of its result."""
    spec, result = folder / f"{name}.run.json", folder / f"{name}.json"
    described = json.dumps(asdict(run), indent=1)
    if result.is_file() and spec.is_file() and spec.read_text() == described:
        print(f"{name}: measured before", file=sys.stderr)
        return dict(json.loads(result.read_text()))
    result.unlink(missing_ok=True)
    spec.write_text(described)
    command = [sys.executable, script, str(spec), str(result)]
    subprocess.run(command, check=True, env=os.environ | _BEFORE_IMPORT)
    return dict(json.loads(result.read_text()))


def run_stage(folder: Path, train_file: Path, heldout_file: Path, **options: Any) -> list[dict]:
    """The held-out rows that `rlhf reward` leaves in `folder`; a finished run is not repeated."""
    given = SETTINGS | {"dtype": "bfloat16", "num_train_epochs": 1} | options
    given |= {"dataset_name": train_file, "eval_dataset_name": heldout_file, "output_dir": folder}
    command = [sys.executable, "-m", "rlhf", "reward", *as_arguments(given)]
    subprocess.run(command, check=True, env=os.environ | _BEFORE_IMPORT, stdout=sys.stderr)
    lines = (folder / "heldout.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def as_arguments(given: dict[str, Any]) -> list[str]:
    return [word for key, value in given.items() for word in (f"--{key}", str(value))]


def train(run: Run, folder: Path) -> dict[str, Any]:
    """Train in this process: losses and seconds of each step, peak memory, scores by name."""
    rows = json.loads(Path(run.rows).read_text())
    settings = settings_of(run, folder)
    trainer = (make_ours if run.side == "ours" else make_stock)(settings, rows["train"])
    if run.weights is not None:
        share_weights(trainer.model, Path(run.weights))
    clock = Clock(trainer)
    train_steps(run, settings, trainer)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "losses": clock.losses(),
        "seconds": clock.seconds,
        "peak_gb": peak_gb,
        "resident_gb": clock.resident_gb,
        "scores": {
            name: scores(trainer.model, ids, settings) for name, ids in rows["scored"].items()
        },
    }


def settings_of(run: Run, folder: Path) -> Any:
    """The reward stage's settings, which hold TRL's own RewardConfig and ModelConfig."""
    from rlhf.training.arguments import parse_settings

    given = SETTINGS | run.options
    given |= {"dtype": run.dtype, "max_steps": run.num_steps}
    given |= {"dataset_name": run.rows, "output_dir": str(folder / "trainer")}
    return parse_settings("reward", as_arguments(given), example="rlhf reward")


def make_ours(settings: Any, rows: list[dict]) -> Any:
    """The reward stage's trainer."""
    from rlhf.training.reward import make_trainer
    from rlhf.training.stage import load_renderer

    return make_trainer(settings, load_renderer(settings), rows, [])


def make_stock(settings: Any, rows: list[dict]) -> Any:
    """TRL's trainer as its own examples make it: model by path, LoRA and head by peft_config."""
    from datasets import Dataset
    from trl import RewardTrainer, get_peft_config

    from rlhf.models.loading import load_tokenizer
    from rlhf.models.registry import resolve_model

    name = settings.model.model_name_or_path
    settings.training.model_init_kwargs = {"dtype": settings.model.dtype}
    lora = get_peft_config(settings.model)
    lora.task_type, lora.modules_to_save = "SEQ_CLS", ["score"]
    return RewardTrainer(
        model=str(resolve_model(name)),
        args=settings.training,
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(name),
        peft_config=lora,
    )


def share_weights(model: Any, path: Path) -> None:
    """Begin with the trained weights in `path`, or put this model's there when it is the first."""
    from safetensors.torch import load_file, save_file

    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    if not path.is_file():
        save_file({name: one.detach().contiguous() for name, one in trained.items()}, path)
        return
    stored = load_file(path)
    assert stored.keys() == trained.keys(), stored.keys() ^ trained.keys()
    for name, one in trained.items():
        one.data.copy_(stored[name])


class Clock:
    """Seconds, loss and resident memory (GB, at its end) of each optimizer step of a trainer."""

    def __init__(self, trainer: Any) -> None:
        from transformers import TrainerCallback

        self.seconds: list[float] = []
        self.resident_gb: list[float | None] = []
        self._parts: list[list[Any]] = []
        clock = self

        class Steps(TrainerCallback):
            def on_step_begin(self, *_args: Any, **_rest: Any) -> None:
                clock._parts.append([])
                clock._began = time.perf_counter()

            def on_step_end(self, *_args: Any, **_rest: Any) -> None:
                clock.seconds.append(time.perf_counter() - clock._began)
                clock.resident_gb.append(resident_gb())

        trainer.add_callback(Steps())
        compute_loss = trainer.compute_loss

        def recorded(*args: Any, **rest: Any) -> Any:
            loss = compute_loss(*args, **rest)
            self._parts[-1].append(loss.detach())
            return loss

        trainer.compute_loss = recorded

    def losses(self) -> list[float]:
        """The mean loss of each step over its micro-batches, unrounded (the log's is averaged)."""
        return [float(sum(part.double() for part in parts)) / len(parts) for parts in self._parts]


def resident_gb() -> float | None:
    """What the process holds in memory now; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def train_steps(run: Run, settings: Any, trainer: Any) -> None:
    from rlhf.models.trl_compat import train_from
    from rlhf.training.fast_forward import fast_forward

    if run.side == "stock":
        trainer.train()
        return
    with fast_forward(trainer, settings):
        train_from(trainer, None)


def scores(model: Any, rows: list[list[int]], settings: Any) -> list[float]:
    """The score of each transcript by the plain forward that TRL itself would do, in row order."""
    import torch

    from rlhf.data.progress import progress

    model.eval()
    pad_id = model.config.get_text_config().pad_token_id
    found = [0.0] * len(rows)
    with torch.inference_mode(), progress("scoring", len(rows), "transcript") as advance:
        done = 0
        for batch in batches(rows):
            length = max(len(rows[index]) for index in batch)
            padded = [rows[index] + [pad_id] * (length - len(rows[index])) for index in batch]
            mask = [[1] * len(rows[i]) + [0] * (length - len(rows[i])) for i in batch]
            logits = model(
                input_ids=torch.tensor(padded), attention_mask=torch.tensor(mask), use_cache=False
            ).logits
            for index, score in zip(batch, logits[:, 0].float().tolist(), strict=True):
                found[index] = score
            done += len(batch)
            advance(done, len(rows))
    return found


def batches(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Places of rows of like length, at most SCORED_TOKENS a batch where a row is no longer."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    made: list[list[int]] = []
    for index in order:
        if made and (len(made[-1]) + 1) * len(rows[made[-1][0]]) <= SCORED_TOKENS:
            made[-1].append(index)
        else:
            made.append([index])
    return made


def main() -> None:
    spec, result = map(Path, sys.argv[1:])
    run = Run(**json.loads(spec.read_text()))
    found = train(run, result.parent)
    part = result.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(result)


if __name__ == "__main__":
    main()
