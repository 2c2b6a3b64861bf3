"""A run of ours beside TRL's own trainer on the same rows in the same order: the same numbers."""

import pytest
from datasets import Dataset
from trl import get_peft_config

from rlhf.models.trl_compat import TokenizedKTOTrainer
from rlhf.training.base import load_base
from rlhf.training.fast_forward import fast_forward
from tests.training.conftest import write_rows
from tests.training.kto.conftest import labelled

BATCH = 4
OPTIONS = [
    *("--use_peft", "--learning_rate", "1e-2", "--max_steps", "4", "--logging_steps", "1"),
    *("--train_sampling_strategy", "sequential", "--balance_labels", "never"),
    *("--row_weights", "never", "--beta", "0.5"),
]


def rotated(rows: list[dict]) -> list[dict]:
    """The rows with the KL completions that TRL 1.16 prepares: the one before, in each batch."""
    made = []
    for start in range(0, len(rows), BATCH):
        ids = [row["completion_ids"] for row in rows[start : start + BATCH]]
        shifted = [ids[-1], *ids[:-1]]
        batch = rows[start : start + BATCH]
        made += [
            {key: row[key] for key in ("prompt_ids", "completion_ids", "label")}
            | {"KL_completion_ids": other}
            for row, other in zip(batch, shifted, strict=True)
        ]
    return made


def test_every_logged_number_is_trls(trainer_of, settings_of, tmp_path):
    # one completion of each prompt, good and bad in turn, so that TRL's neighbours are foreign
    rows = [labelled(2 * number + number % 2) for number in range(12)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    ours, settings = trainer_of(path, *OPTIONS), settings_of(path, *OPTIONS)
    stock = TokenizedKTOTrainer(
        model=load_base(settings),
        args=settings.training,
        train_dataset=Dataset.from_list(rotated(ours.train_dataset.to_list())),
        processing_class=ours.processing_class,
        peft_config=get_peft_config(settings.model),
    )
    with fast_forward(ours, settings, quiet=True):
        ours.train()
    stock.train()
    mine, theirs = (trainer.state.log_history[:-1] for trainer in (ours, stock))
    assert len(mine) == len(theirs) == 4
    assert mine[-1]["kl"] > 0 or mine[-1]["rewards/margins"] != 0  # it has learnt something
    for one, other in zip(mine, theirs, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            assert one[key] == pytest.approx(value, rel=1e-5, abs=1e-5), key
