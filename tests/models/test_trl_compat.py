"""What is used of TRL's and transformers' private names is there, and does what we take it for."""

import pytest
import torch
import trl.trainer.utils
from datasets import Dataset
from transformers import Trainer

from rlhf.models.trl_compat import TokenizedDPOTrainer, completion_positions_only

ROWS = [
    {"prompt_ids": [1, 5, 6, 7, 8, 9], "chosen_ids": [10, 11, 2], "rejected_ids": [12, 2]},
    {"prompt_ids": [1, 5], "chosen_ids": [10, 2], "rejected_ids": [13, 14, 15, 16, 17]},
]


@pytest.fixture
def trainer(tiny_model, tmp_path):
    from trl import DPOConfig

    from rlhf.models.loading import load_policy, load_tokenizer

    policy, reference = load_policy(tiny_model), load_policy(tiny_model)
    with torch.no_grad():  # a policy that is no longer its reference has a loss beyond ln 2
        for weight in policy.parameters():
            weight.mul_(1.1)
    options = {"use_cpu": True, "bf16": False, "activation_checkpointing": False}
    arguments = DPOConfig(output_dir=str(tmp_path), report_to="none", **options)
    return TokenizedDPOTrainer(
        model=policy.train(),
        ref_model=reference,
        args=arguments,
        train_dataset=Dataset.from_list(ROWS),
        processing_class=load_tokenizer(tiny_model),
    )


def loss_and_gradients(trainer) -> tuple[torch.Tensor, list[torch.Tensor]]:
    trainer.model.zero_grad()
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(len(ROWS))])
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.detach(), [weight.grad.clone() for weight in trainer.model.parameters()]


def test_completion_positions_alone_give_the_loss_and_gradients_of_all(trainer, monkeypatch):
    kernel, num_scored = trl.trainer.utils._ChunkedLogProbFunction, []
    original = kernel.apply

    def counting(hidden, *rest):
        num_scored.append(len(hidden))
        return original(hidden, *rest)

    monkeypatch.setattr(kernel, "apply", counting)
    whole_loss, whole = loss_and_gradients(trainer)
    scored_whole = sum(num_scored)
    num_scored.clear()
    with completion_positions_only():
        loss, gradients = loss_and_gradients(trainer)
    num_completion_tokens = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in ROWS)
    assert sum(num_scored) == 2 * num_completion_tokens < scored_whole  # policy and reference
    assert abs(float(whole_loss) - 0.6931) > 0.01
    torch.testing.assert_close(loss, whole_loss, atol=1e-6, rtol=1e-6)
    for ours, theirs in zip(gradients, whole, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert any(gradient.abs().max() > 1e-4 for gradient in gradients)


def test_the_switch_is_put_back_whatever_happens():
    before = trl.trainer.utils._use_triton
    during = []

    def fail() -> None:
        with completion_positions_only():
            during.append(trl.trainer.utils._use_triton)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert during != [before]
    assert trl.trainer.utils._use_triton is before


def test_the_private_names_are_there(trainer):
    assert callable(trl.DPOTrainer._prepare_dataset)
    assert callable(Trainer._load_from_checkpoint)
    assert trainer._total_train_tokens == 0
    assert list(trainer.train_dataset) == ROWS  # what _prepare_dataset would have tokenised again
