"""The DPO trainer under LoRA, DoRA, all weights and 4 bits, with labels of every kind."""

from math import log

import pytest
import torch
from safetensors.torch import load_file
from trl import DPOTrainer

from rlhf.cli import main
from rlhf.models.loading import load_policy
from tests.processes import run_ranks
from tests.tiny import make_tiny_model
from tests.training.conftest import QUICK, metrics_of, read_json, write_rows
from tests.training.dpo.conftest import batch_of
from tests.training.dpo.test_labels import rows_of

KINDS = {
    "lora": ["--use_peft"],
    "dora": ["--use_peft", "--use_dora"],
    "full": [],
    "4bit": ["--use_peft", "--load_in_4bit"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_train_learns_from_soft_labels(kind, tmp_path):
    if kind == "4bit":
        pytest.importorskip("bitsandbytes")
    model = make_tiny_model(tmp_path / "model", hidden_size=64)  # a block of 4-bit weights is 64
    data = write_rows(tmp_path / "p.jsonl", [*rows_of(4, p_chosen=0.9), *rows_of(2, 4)])
    folder = tmp_path / "out"
    words = ["dpo", "--model_name_or_path", str(model), "--dataset_name", str(data), *QUICK]
    words += ["--loss_type", "sigmoid", "sft", "--loss_weights", "1", "0.1"]
    words += ["--output_dir", str(folder), "--learning_rate", "5e-3", "--max_steps", "6"]
    assert main([*words, *KINDS[kind], "--debug"]) == 0
    log_rows = [row for row in read_json(folder / "log.json") if "loss" in row]
    # policy and reference are one before the first step: ln 2, and the sft loss beside it
    assert log_rows[0]["rewards/margins"] == pytest.approx(0, abs=0.05 if kind == "4bit" else 1e-5)
    assert log_rows[0]["loss"] > log(2)
    assert log_rows[-1]["rewards/margins"] > 0.1
    assert load_policy(folder)(torch.tensor([[1, 5, 6]])).logits.isfinite().all()
    if kind == "dora":
        names = load_file(folder / "adapter_model.safetensors")
        assert any("magnitude" in name for name in names)
    assert (folder / "model.safetensors").exists() == (kind == "full")


def test_the_reference_is_read_from_columns_where_they_are(trainer_for, tmp_path):
    data = write_rows(tmp_path / "p.jsonl", rows_of(3, p_chosen=0.8))
    trainer = trainer_for(data)
    batch = batch_of(trainer, [0, 2])
    chosen, rejected = trainer.reference_logps(batch)
    assert chosen.shape == rejected.shape == (2,)
    assert not chosen.requires_grad
    loss = trainer.compute_loss(trainer.model, dict(batch)).item()
    given = batch | {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    assert trainer.reference_logps(given)[0] is chosen
    assert trainer.compute_loss(trainer.model, dict(given)).item() == loss
    assert trainer.precompute_ref_logps is False  # put back
    shifted = given | {"ref_chosen_logps": chosen - 5}
    assert trainer.compute_loss(trainer.model, shifted).item() != pytest.approx(loss, abs=1e-2)


def test_a_whole_model_has_its_second_as_the_reference(trainer_for, tmp_path):
    data = write_rows(tmp_path / "p.jsonl", [*rows_of(2), *rows_of(1, 2, p_chosen=0.8)])
    trainer = trainer_for(data, peft=False)
    batch = batch_of(trainer, [0, 1])
    plain = {name: batch[name] for name in ("input_ids", "attention_mask", "completion_mask")}
    theirs = DPOTrainer.compute_loss(trainer, trainer.model, plain).item()
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(theirs, abs=1e-6)
    assert theirs != pytest.approx(log(2), abs=1e-2)


def test_padding_to_a_multiple_is_kept(trainer_for, pairs):
    trainer = trainer_for(pairs, "--pad_to_multiple_of", "16")
    assert batch_of(trainer, [0, 1])["input_ids"].shape[1] % 16 == 0


def test_precomputed_reference_and_labels_go_together(run_stage, tmp_path):
    data = write_rows(tmp_path / "p.jsonl", rows_of(6, p_chosen=0.8))
    options = ("--use_peft", "--learning_rate", "1e-2", "--eval_fraction", "0.3")
    direct = run_stage("dpo", data, *options, out="direct")
    before = run_stage("dpo", data, *options, "--precompute_ref_log_probs", out="before")
    ours, theirs = (
        [row["loss"] for row in read_json(folder / "log.json") if "loss" in row]
        for folder in (direct, before)
    )
    assert len(ours) == 3
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert metrics_of(direct)["eval_loss"] == pytest.approx(metrics_of(before)["eval_loss"])


@pytest.mark.long
def test_rankings_that_do_not_fill_the_processes_alike_are_one_run(tiny_model, tmp_path):
    """Steps of three pairs: one process has one of them, the other two, and both are logged."""
    rows = [
        row | {"prompt": f"p{index // 3}", "group": f"g{index // 3}"}
        for index, row in enumerate(rows_of(12, p_chosen=0.8))
    ]
    data = write_rows(tmp_path / "ranked.jsonl", rows)
    words = ["dpo", "--model_name_or_path", str(tiny_model), "--dataset_name", str(data), *QUICK]
    words += ["--use_peft", "--learning_rate", "1e-2", "--save_strategy", "no", "--debug"]
    words += ["--max_steps", "4"]
    ended = run_ranks(2, tmp_path, main, [*words, "--output_dir", str(tmp_path / "two")])
    assert [one.exit_code for one in ended] == [0, 0], ended[0].stderr
    alone = [*words, "--output_dir", str(tmp_path / "one"), "--gradient_accumulation_steps", "2"]
    assert main(alone) == 0
    two, one = (
        [row["loss"] for row in read_json(tmp_path / name / "log.json")] for name in ("two", "one")
    )
    assert len(two) == 4
    assert two == pytest.approx(one, abs=1e-5)


def test_sequences_over_the_limit_are_dropped_unless_a_side_is_named(run_stage, tmp_path, capsys):
    long = rows_of(1, 4, chosen="yes " * 60)
    data = write_rows(tmp_path / "p.jsonl", [*rows_of(4), *long])
    limit = ("--max_length", "60", "--max_loss", "0.2", "--use_peft")
    assert metrics_of(run_stage("dpo", data, *limit))["num_train"] == 4
    assert "1 dropped: over --max_length 60" in capsys.readouterr().err
    kept = run_stage("dpo", data, *limit, "--truncation_mode", "keep_start", out="kept")
    assert metrics_of(kept)["num_train"] == 5
    assert "1 cut: over --max_length 60, end of a completion cut" in capsys.readouterr().err
    turned = run_stage("dpo", data, *limit, "--truncation_mode", "keep_end", out="none", expect=0)
    said = capsys.readouterr().err
    assert "1 dropped: completion fills --max_length 60" in said  # no prompt would be left
    assert "deprecated" not in said
    assert metrics_of(turned)["num_train"] == 4
    losses = read_json(kept / "manifest.json")["provenance"]["losses"]
    assert losses["cut"] == {"over --max_length 60, end of a completion cut": 1}


def test_pairs_whose_prompts_differ_are_kept_and_counted(run_stage, tmp_path, capsys):
    turns = [[{"role": "user", "content": text}] for text in ("one?", "two?")]
    said = {"role": "assistant", "content": "yes"}
    rows = [{"chosen": [*turns[0], said], "rejected": [*turns[1], said]}] * 3
    folder = run_stage("dpo", write_rows(tmp_path / "p.jsonl", rows), "--use_peft")
    assert metrics_of(folder)["num_train"] == 3
    assert "3 noted: pairs whose prompts differ" in capsys.readouterr().err


def test_conversations_need_a_chat_template(run_stage, tiny_model, pairs, tmp_path, capsys):
    from shutil import copytree

    bare = tmp_path / "bare"
    copytree(tiny_model, bare)
    for path in bare.glob("chat_template*"):
        path.unlink()
    run_stage("dpo", pairs, "--model_name_or_path", str(bare), expect=2)
    last = capsys.readouterr().err.splitlines()[-1]
    assert "the tokenizer has no chat template, so it cannot render messages; give --chat" in last
