"""KTO's loss by hand: known log-ratios, a known KL, weights of rows and of labels."""

from math import log

import pytest
import torch

from tests.training.conftest import write_rows
from tests.training.kto.conftest import labelled

KL = log(2)


def batch_of(trainer, desirable: float, undesirable: float, kl: float, weights=None):
    """A bad and a good row, with reference log-probs such that their log-ratios are given."""
    rows = [trainer.train_dataset[index] for index in (0, 1)]
    batch = trainer.data_collator(rows)
    assert batch["label"].tolist() == [False, True]
    logps, kl_logps = trainer.compute_ref_log_probs(trainer.model, batch)
    batch["ref_logps"] = logps - torch.tensor([undesirable, desirable])
    batch["ref_KL_logps"] = kl_logps - kl
    if weights is not None:
        batch["weight"] = torch.tensor(weights)
    trainer.precompute_ref_logps = True
    return batch


@pytest.fixture
def trainer(trainer_of, tmp_path):
    # of different prompts: a batch of two completions of one prompt has no mismatched pair
    rows = [labelled(0), labelled(3), labelled(4), labelled(7)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    return trainer_of(path, "--use_peft", "--beta", "1", "--balance_labels", "never")


# Good: 1 - sigmoid(r - KL) with r - KL = ln 3 is 1/4. Bad: 1 - sigmoid(KL - r) with KL - r = ln 4
# is 1/5. Eqn (7) of arXiv 2402.01306, beta 1.
GOOD, BAD = KL + log(3), KL - log(4)


def test_one_good_and_one_bad_row_at_known_log_ratios(trainer):
    loss = trainer.compute_loss(trainer.model, batch_of(trainer, GOOD, BAD, KL))
    assert loss.item() == pytest.approx((1 / 4 + 1 / 5) / 2, abs=1e-6)


def test_a_negative_kl_counts_as_none(trainer):
    batch = batch_of(trainer, log(3), -log(4), -KL)
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(0.225, abs=1e-6)


def test_rows_and_labels_have_weights(trainer):
    trainer.desirable_weight, trainer.undesirable_weight = 3.0, 1.0
    batch = batch_of(trainer, GOOD, BAD, KL, weights=[0.5, 2.0])
    # 3 x 2 x 1/4 of the good row, 1 x 0.5 x 1/5 of the bad one, over two rows
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(0.8, abs=1e-6)
    assert (trainer.desirable_weight, trainer.undesirable_weight) == (3.0, 1.0)
    assert "weight" in batch  # what was handed in is as it was


def test_a_batch_of_one_label_has_the_weights_of_its_rows(trainer):
    batch = batch_of(trainer, GOOD, GOOD, KL, weights=[2.0, 1.0])
    batch["label"] = torch.tensor([True, True])
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(3 / 8, abs=1e-6)


def test_policy_and_reference_begin_as_one(trainer):
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    # every log-ratio and the KL are 0, and 1 - sigmoid(0) is 1/2
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(0.5, abs=1e-6)


def test_apo_has_no_reference_point(trainer_of, unpaired):
    options = ("--use_peft", "--loss_type", "apo_zero_unpaired", "--row_weights", "never")
    trainer = trainer_of(unpaired, *options, "--per_device_train_batch_size", "1")
    batch = trainer.data_collator([trainer.train_dataset[0]])
    assert not any(key.startswith("KL_") for key in batch)
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(0.5, abs=1e-6)
