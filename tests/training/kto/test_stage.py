"""`rlhf kto` on a tiny policy: from every kind of data, refused where it must be, resumed."""

import os
import signal
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from rlhf.cli import main
from rlhf.errors import ConfigError
from rlhf.models.loading import load_policy, load_tokenizer
from rlhf.training.stage import callbacks
from tests.data.test_unpaired import SCALE, rated, verdicts
from tests.hub import DataHub, transported
from tests.processes import run_alone
from tests.training.conftest import metrics_of, read_json, write_rows
from tests.training.kto.conftest import labelled
from tests.training.test_resume import assert_same_outcome

OPTIONS = [
    *("--use_peft", "--learning_rate", "1e-2", "--max_steps", "10", "--save_steps", "3"),
    *("--logging_steps", "2", "--per_device_train_batch_size", "3"),
    *("--gradient_accumulation_steps", "2", "--lora_dropout", "0.2"),
]


def test_the_policy_learns_and_its_labels_are_counted(run_stage, unpaired, tiny_model, capsys):
    options = ("--use_peft", "--learning_rate", "1e-2", "--max_steps", "20")
    folder = run_stage("kto", unpaired, *options, "--eval_fraction", "0.4")
    log = read_json(folder / "log.json")
    assert log[0]["loss"] == pytest.approx(0.5, abs=0.2)  # half of each row's weight and factor
    assert log[19]["loss"] < 0.7 * log[0]["loss"]
    metrics = metrics_of(folder)
    assert metrics["num_train"] + metrics["num_eval"] == 24
    assert metrics["num_desirable"] == metrics["num_undesirable"] == metrics["num_train"] / 2
    assert 1 <= metrics["label_ratio"] <= 4 / 3 + 1e-9
    assert metrics["warnings"] == []
    assert metrics["eval_rewards/margins"] > 0
    assert {"eval_loss", "eval_kl", "train_loss"} <= metrics.keys()
    assert "they stand" in capsys.readouterr().err
    ids = torch.tensor([[1, 5, 6, 7]])
    assert not torch.allclose(load_policy(folder)(ids).logits, load_policy(tiny_model)(ids).logits)


class Killer(TrainerCallback):
    """Kills its own process, as kill -9 does, in the third pass over the data."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 8:
            os.kill(os.getpid(), signal.SIGKILL)


def run_until_killed(words):
    from rlhf.training.kto import trainer

    trainer.callbacks = lambda settings: [*callbacks(settings), Killer()]
    return main(words)


def test_killed_and_continued_equals_unbroken(run_stage, unpaired, tiny_model, tmp_path):
    broken = tmp_path / "broken"
    words = ["kto", "--model_name_or_path", str(tiny_model), "--dataset_name", str(unpaired)]
    ended = run_alone(
        tmp_path / "said", run_until_killed, [*words, "--output_dir", str(broken), *OPTIONS]
    )
    assert ended.exit_code == -signal.SIGKILL, ended.stderr
    assert (broken / "checkpoint-6" / "complete.json").exists()
    run_stage("kto", unpaired, *OPTIONS, out="broken")
    unbroken = run_stage("kto", unpaired, *OPTIONS, out="unbroken")
    assert_same_outcome(broken, unbroken)


def test_a_run_that_leaves_the_finite_numbers_stops_and_names_its_rows(run_stage, unpaired, capsys):
    run_stage("kto", unpaired, "--learning_rate", "1e30", "--max_steps", "5", expect=4)
    said = capsys.readouterr().err.splitlines()[-1]
    assert "became NaN or infinite at step 2" in said
    assert "unpaired.jsonl:" in said


def test_reference_log_probs_computed_beforehand_are_those_of_the_steps(trainer_of, unpaired):
    options = ("--use_peft", "--row_weights", "never")
    early = trainer_of(unpaired, *options, "--precompute_ref_log_probs")
    late = trainer_of(unpaired, *options)
    rows = [early.train_dataset[index] for index in range(4)]
    batch = early.data_collator(rows)
    logps, kl_logps = late.compute_ref_log_probs(late.model, batch)
    assert torch.allclose(batch["ref_logps"], logps, atol=1e-5)
    assert torch.allclose(batch["ref_KL_logps"], kl_logps, atol=1e-5)
    assert early.compute_loss(early.model, batch).item() == pytest.approx(0.5, abs=1e-6)


def test_all_weights_are_tuned_against_a_second_copy(run_stage, unpaired):
    folder = run_stage("kto", unpaired, "--learning_rate", "1e-2", "--row_weights", "never")
    assert read_json(folder / "log.json")[0]["loss"] == pytest.approx(0.5, abs=1e-6)
    assert (folder / "model.safetensors").exists()


def test_rows_come_in_another_order_each_epoch_unless_asked(trainer_of, unpaired):
    def order(*options: str) -> list[int]:
        trainer = trainer_of(unpaired, "--use_peft", *options)
        return [int(n) for batch in trainer.get_train_dataloader() for n in batch["row"]]

    assert sorted(order()) == list(range(24))
    assert order() != list(range(24))
    assert order("--train_sampling_strategy", "sequential") == list(range(24))


def test_early_stopping_keeps_the_best(run_stage, unpaired):
    options = ("--eval_fraction", "0.4", "--early_stopping_patience", "1", "--save_steps", "1")
    # at this rate the held-out loss cannot go on falling for 40 steps
    options += ("--max_steps", "40", "--learning_rate", "1.0", "--eval_steps", "1", "--use_peft")
    folder = run_stage("kto", unpaired, *options, "--save_strategy", "steps")
    metrics = metrics_of(folder)
    assert metrics["stopped_early"]
    assert metrics["best_eval_loss"] == pytest.approx(metrics["eval_loss"], abs=1e-5)


def test_a_store_trains_with_its_provenance(run_stage, tmp_path):
    given = {f"i{n}": [(5.0, 1.0), (4.0, 2.0)] for n in range(4)}
    store = rated(tmp_path / "f.db", given, **SCALE)
    folder = run_stage("kto", f"feedback:{store}#c", "--use_peft")
    manifest = read_json(folder / "manifest.json")
    assert manifest["simulated"] is True
    data = manifest["provenance"]["data"]
    assert (data["labelled_by"], data["rating_threshold"], data["num_labels"]) == ("ratings", 3, 8)
    assert data["format"] == "judgements summed up as unpaired preference (plain text)"
    assert manifest["metrics"]["num_desirable"] == 4


def test_a_threshold_is_for_ratings(run_stage, unpaired, tmp_path, capsys):
    run_stage("kto", unpaired, "--rating_threshold", "3", expect=2)
    assert "come from the rows themselves, not from ratings" in capsys.readouterr().err
    store = f"feedback:{verdicts(tmp_path / 'f.db')}#c"
    run_stage("kto", store, "--rating_threshold", "3", expect=2)
    assert "come from pairwise, not from ratings" in capsys.readouterr().err


def test_a_hub_id_of_pairs_trains_kto_and_dpo(run_stage, tmp_path):
    hub = DataHub()
    name = hub.add(
        "ada/pairs", [{"prompt": f"p{n}", "chosen": "yes", "rejected": "no"} for n in range(6)]
    )
    with transported(hub, tmp_path / "cache"):
        for verb in ("kto", "dpo"):
            folder = run_stage(verb, name, "--use_peft", out=verb)
            assert read_json(folder / "manifest.json")["provenance"]["data"]["kind"] == "hub"
    assert metrics_of(tmp_path / "kto")["num_train"] == 12


def test_what_is_too_long_is_dropped_and_counted(run_stage, tmp_path, capsys):
    rows = [labelled(number) for number in range(8)]
    rows[3]["completion"] = "yes " * 60
    path = write_rows(tmp_path / "rows.jsonl", rows)
    run_stage("kto", path, "--max_length", "60", expect=5)
    assert "1 of 8 rows lost (12.5%): 1 dropped: over --max_length 60" in capsys.readouterr().err
    folder = run_stage("kto", path, "--max_length", "60", "--max_loss", "0.2", "--use_peft")
    assert metrics_of(folder)["num_train"] == 7


def test_a_tokenizer_without_chat_template_is_one_line(tiny_model, unpaired, tmp_path, capsys):
    plain = tmp_path / "plain"
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(plain)
    for name in ("config.json", "model.safetensors"):
        (plain / name).write_bytes((Path(tiny_model) / name).read_bytes())
    words = ["--model_name_or_path", str(plain), "--output_dir", str(tmp_path / "o")]
    for verb in ("kto", "sft"):
        assert main([verb, "--dataset_name", str(unpaired), *words]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert "chat template" in last
        assert last.startswith(f"rlhf {verb}: ")


def test_sides_that_come_out_alike_teach_nothing(run_stage, tmp_path, capsys):
    pairs = [{"prompt": f"p{n}", "chosen": "so", "rejected": "no"} for n in range(3)]
    # one side says that it ended, the other says nothing, and is taken to have ended
    alike = {"prompt": "p", "chosen": "so", "rejected": "so", "rejected_ended": True}
    path = write_rows(tmp_path / "rows.jsonl", [*pairs, alike])
    run_stage("kto", path, expect=5)
    said = capsys.readouterr().err.splitlines()[-1]
    assert "2 of 8 rows lost (25.0%): 2 dropped: identical tokens in chosen and rejected" in said
    folder = run_stage("kto", path, "--max_loss", "0.3", "--use_peft")
    assert metrics_of(folder)["num_train"] == 6


def test_pairs_of_two_prompts_give_each_side_its_own(run_stage, tmp_path, capsys):
    def said(question: str, answer: str) -> list[dict]:
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    rows = [{"chosen": said(f"a{n}?", "yes"), "rejected": said(f"b{n}?", "no")} for n in range(2)]
    folder = run_stage("kto", write_rows(tmp_path / "rows.jsonl", rows), "--use_peft")
    assert metrics_of(folder)["num_train"] == 4
    assert "2 noted: pairs whose prompts differ" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([labelled(1), labelled(3)], "all 2 rows are labelled true"),
        ([labelled(0), labelled(1)], "all 2 rows have one prompt"),
        (
            [{"prompt": "p", "chosen": "a", "rejected": "a"}] * 2,
            "2 dropped: identical chosen and rejected",
        ),
    ],
)
def test_data_that_teach_nothing_are_one_line(run_stage, tmp_path, capsys, rows, message):
    run_stage("kto", write_rows(tmp_path / "rows.jsonl", rows), expect=3)
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_split_that_leaves_one_label_is_refused(run_stage, tmp_path, capsys):
    from rlhf.data.splits import is_held_out

    held = {n for n in range(0, 40, 2) if is_held_out(labelled(n)["prompt"], 0.5)}
    rows = [labelled(n + (n not in held)) for n in range(0, 40, 2)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    run_stage("kto", path, "--eval_fraction", "0.5", expect=3)
    assert "left to train on are labelled true" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--beta", "0"), "--beta 0.0: must be above 0"),
        (("--desirable_weight", "-1"), "--desirable_weight -1.0: must be above 0"),
        (("--undesirable_weight", "nan"), "--undesirable_weight nan: must be above 0"),
        (("--rating_threshold", "inf"), "--rating_threshold inf: must be"),
        (("--early_stopping_patience", "-1"), "--early_stopping_patience -1: must be"),
        (("--per_device_train_batch_size", "1"), "a batch needs at least 2"),
        (("--train_sampling_strategy", "group_by_length"), "choose random or sequential"),
        (("--early_stopping_patience", "1", "--save_strategy", "no"), "keeps the best checkpoint"),
        (("--sync_ref_model", "--use_peft"), "which does not move"),
        (("--sync_ref_model", "--precompute_ref_log_probs"), "takes it as fixed"),
        (("--max_length", "0"), "--max_length 0: must be at least 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings_of, options, message):
    with pytest.raises(ConfigError, match=message):
        settings_of("d.jsonl", *options)


def test_early_stopping_needs_rows_to_stop_by(run_stage, unpaired, capsys):
    run_stage("kto", unpaired, "--early_stopping_patience", "1", expect=2)
    assert "--early_stopping_patience: no row is held out" in capsys.readouterr().err


def test_the_doctor_reads_as_the_stage_does(tiny_model, tmp_path, capsys):
    contrary = labelled(5, label=False)
    rows = [*(labelled(number) for number in range(6)), contrary]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    words = ["--model_name_or_path", str(tiny_model), "--dataset_name", str(path)]
    assert main(["doctor", "--stage", "kto", *words]) == 0
    out = capsys.readouterr().out
    assert "unpaired preference (conversational)" in out
    assert "have the other label than an earlier one" in out
