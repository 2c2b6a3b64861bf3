"""The reward trainer on tiny models: TRL's loss for hard labels, ours for others, and ensembles."""

import json
import re
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl import RewardTrainer

from rlhf.data.tokenization import Renderer
from rlhf.models.loading import load_tokenizer
from rlhf.models.reward_ensemble import active_member, weights_of
from rlhf.models.reward_spec import RewardSpec
from rlhf.models.scoring import RewardModel
from rlhf.training.arguments import parse_settings
from rlhf.training.stage import callbacks, load_inputs
from tests.training.conftest import metrics_of, read_json, write_rows

HELD = ("--eval_fraction", "0.4")


def rows_of(number: int, **columns) -> list[dict]:
    return [
        {"prompt": f"p{index}", "chosen": f"yes {index}", "rejected": "no", **columns}
        for index in range(number)
    ]


def trainer_for(tiny_model, data, tmp_path, *options: str):
    from rlhf.training.reward.recipe import make_trainer, read_columns, trained_rows

    words = ["--model_name_or_path", str(tiny_model), "--dataset_name", str(data)]
    words += ["--eval_fraction", "0", "--output_dir", str(tmp_path / "o"), "--use_peft", *options]
    settings = parse_settings("reward", words, example="")
    renderer = Renderer(load_tokenizer(tiny_model))
    rows = read_columns(settings, renderer, load_inputs(settings))
    trained = trained_rows(rows, settings)
    return make_trainer(settings, renderer, rows.train, [], trained)


def batch_of(trainer, rows: list[int]) -> dict:
    return trainer.data_collator([trainer.train_dataset[row] for row in rows])


def loss_of(trainer, rows: list[int]) -> torch.Tensor:
    return trainer.compute_loss(trainer.model, batch_of(trainer, rows))


def trl_loss_of(trainer, rows: list[int]) -> torch.Tensor:
    batch = {
        key: value
        for key, value in batch_of(trainer, rows).items()
        if key in ("input_ids", "attention_mask", "margin")
    }
    return RewardTrainer.compute_loss(trainer, trainer.model, batch)


def zero_the_head(trainer) -> None:
    for name, weight in trainer.model.named_parameters():
        if "score" in name:
            torch.nn.init.zeros_(weight)


def test_hard_labels_are_trl_loss(tiny_model, pairs, tmp_path):
    trainer = trainer_for(tiny_model, pairs, tmp_path)
    assert torch.equal(loss_of(trainer, [0, 3, 5]), trl_loss_of(trainer, [0, 3, 5]))


def test_certain_labels_and_margins_are_trl_loss_too(tiny_model, tmp_path):
    rows = rows_of(4, p_chosen=1.0, margin=2.0) + rows_of(1, p_chosen=0.9, margin=1.0)
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    options = ("--use_margin", "--margin_scale", "0.5", "--center_rewards_coefficient", "0.1")
    trainer = trainer_for(tiny_model, data, tmp_path, *options)
    assert {"p_chosen", "margin"} <= set(trainer.train_dataset.column_names)
    assert loss_of(trainer, [0, 1, 2]).item() == pytest.approx(
        trl_loss_of(trainer, [0, 1, 2]).item()
    )


def test_soft_labels_by_hand(tiny_model, tmp_path):
    rows = rows_of(1, p_chosen=0.75) + rows_of(1, p_chosen=0.5)
    trainer = trainer_for(tiny_model, write_rows(tmp_path / "p.jsonl", rows), tmp_path)
    _, outputs = trainer.compute_loss(trainer.model, batch_of(trainer, [0, 1]), return_outputs=True)
    chosen, rejected = outputs.logits[:, 0].tolist()[:2], outputs.logits[:, 0].tolist()[2:]
    gaps = [c - r for c, r in zip(chosen, rejected, strict=True)]
    each = [p * np.logaddexp(0, -gap) + (1 - p) * np.logaddexp(0, gap)
            for p, gap in zip((0.75, 0.5), gaps, strict=True)]  # fmt: skip
    assert loss_of(trainer, [0, 1]).item() == pytest.approx(sum(each) / 2, rel=1e-5)
    noted = trainer._metrics["train"]["accuracy"]
    assert noted == [float(gaps[0] > 0)] * 2  # the tie is in no accuracy


def test_weights_scale_the_loss_of_a_row_alone_in_its_batch(tiny_model, tmp_path):
    rows = [row | {"weight": weight} for row, weight in zip(rows_of(2), (1.0, 3.0), strict=True)]
    trainer = trainer_for(tiny_model, write_rows(tmp_path / "p.jsonl", rows), tmp_path)
    zero_the_head(trainer)
    losses = [loss_of(trainer, [row]).item() for row in (0, 1)]
    assert losses == pytest.approx([0.5 * log(2), 1.5 * log(2)])


def test_a_pair_of_a_ranking_counts_the_same_in_a_batch_of_any_size(tiny_model, tmp_path):
    # 3 pairs in a step of two batches are 1 and 2: divided by their mean of 1.5, not by 1 and 2
    rows = [row | {"group": "g", "prompt": "p"} for row in rows_of(3)]
    data = write_rows(tmp_path / "ranked.jsonl", rows)
    trainer = trainer_for(tiny_model, data, tmp_path, "--gradient_accumulation_steps", "2")
    zero_the_head(trainer)  # every pair's loss is log 2
    assert [len(batch["input_ids"]) // 2 for batch in trainer.get_train_dataloader()] == [1, 2]
    assert loss_of(trainer, [0]).item() == pytest.approx(log(2) / 1.5)
    assert loss_of(trainer, [0, 1]).item() == pytest.approx(2 * log(2) / 1.5)
    trainer.model.eval()
    assert loss_of(trainer, [0]).item() == pytest.approx(log(2))


@pytest.mark.parametrize("use_peft", ["true", "false"])
def test_scores_in_training_are_float32_under_bf16_too(use_peft, tiny_model, pairs, tmp_path):
    options = ("--bf16", "true", "--dtype", "bfloat16", "--use_peft", use_peft)
    trainer = trainer_for(tiny_model, pairs, tmp_path, *options)
    scores = []
    for name, module in trainer.model.named_modules():
        if name.endswith(("score", "score.modules_to_save.default")):
            module.register_forward_hook(lambda module, given, made: scores.append(made.clone()))
    trainer.current_gradient_accumulation_steps = 1
    with trainer.accelerator.autocast():
        trainer.compute_loss(trainer.model, batch_of(trainer, [0, 1, 2]))
    assert {score.dtype for score in scores} == {torch.float32}
    assert any((score != score.bfloat16().float()).any() for score in scores)


def test_each_criterion_trains_its_own_head(tiny_model, tmp_path):
    rows = rows_of(2, criteria={"help": 0.9}) + rows_of(1, criteria={"true": 0.2})
    data = write_rows(tmp_path / "p.jsonl", rows)
    trainer = trainer_for(tiny_model, data, tmp_path, "--criteria", "help=0.65,true=0.8")
    zero_the_head(trainer)
    loss_of(trainer, [0, 1]).backward()
    head = next(w for n, w in trainer.model.named_parameters() if n.endswith("default.weight")
                and "score" in n)  # fmt: skip
    assert head.shape[0] == 2
    assert head.grad[0].abs().sum() > 0
    assert head.grad[1].abs().sum() == 0  # no label by it in these rows
    assert "accuracy_help" in trainer._metrics["train"]
    assert "accuracy_true" not in trainer._metrics["train"]


def test_held_out_rows_say_what_each_head_scored(run_stage, tmp_path):
    data = write_rows(tmp_path / "p.jsonl", rows_of(12, criteria={"help": 0.9, "true": 0.2}))
    folder = run_stage("reward", data, "--use_peft", "--criteria", "help=2,true=-1", *HELD)
    for line in (folder / "heldout.jsonl").read_text().splitlines():
        row = json.loads(line)
        for side in ("chosen", "rejected"):
            heads = row[f"{side}_head_scores"]
            expected = 2 * heads["help"] - heads["true"]
            assert row[f"{side}_score"] == pytest.approx(expected, abs=1e-4)


def test_every_member_gets_the_gradients_of_being_trained_alone(tiny_model, pairs, tmp_path):
    options = ("--num_members", "3", "--gradient_checkpointing", "--lora_dropout", "0.5")
    trainer = trainer_for(tiny_model, pairs, tmp_path, *options)
    model = trainer.model.train()
    assert trainer.members == ["default", "member-2", "member-3"]

    def gradients() -> dict[str, torch.Tensor]:
        found = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
        model.zero_grad()
        return found

    trainer.current_gradient_accumulation_steps = 1
    trainer.training_step(model, batch_of(trainer, [0, 1]))
    together = gradients()
    alone = {}
    for name in trainer.members:
        with active_member(model, name):
            loss_of(trainer, [0, 1]).backward()
            alone |= {n: g for n, g in gradients().items() if f".{name}." in n}
    heads = [name for name in together if "score" in name]
    assert len(heads) == 3
    assert together.keys() == alone.keys()
    assert all(torch.allclose(together[name], alone[name], atol=1e-6) for name in together)
    first, second = (together[name] for name in heads[:2])
    assert not torch.allclose(first, second)


def test_every_member_ends_as_if_trained_alone_though_gradients_are_clipped(
    tiny_model, pairs, tmp_path
):
    options = ("--max_steps", "4", "--learning_rate", "1e-2", "--max_grad_norm", "0.05",
               "--save_strategy", "no", "--optim", "sgd")  # fmt: skip
    together = trainer_for(tiny_model, pairs, tmp_path, *options, "--num_members", "2")
    names = ("default", "member-2")
    begun = {name: [w.detach().clone() for w in weights_of(together.model, name)] for name in names}
    together.train()
    assert together.state.log_history[-1]["step"] == 4
    for name in names:
        alone = trainer_for(tiny_model, pairs, tmp_path, *options)
        for weight, start in zip(weights_of(alone.model, "default"), begun[name], strict=True):
            weight.data.copy_(start)
        alone.train()
        ends = [weights_of(together.model, name), weights_of(alone.model, "default"), begun[name]]
        assert not all(torch.equal(one, start) for one, _, start in zip(*ends, strict=True))
        assert all(torch.equal(one, other) for one, other, _ in zip(*ends, strict=True))


def test_bags_differ_by_member_and_stay_the_same(tiny_model, pairs, tmp_path):
    options = ("--num_members", "2", "--member_bagging")
    trainer = trainer_for(tiny_model, pairs, tmp_path, *options)
    bags = trainer.bags
    assert bags.shape == (2, 24)
    assert not torch.equal(bags[0], bags[1])
    trainer.draw_bags()
    assert torch.equal(trainer.bags, bags)
    zero_the_head(trainer)
    for trainer.member in (0, 1):
        loss = loss_of(trainer, [4, 7]).item()
        assert loss == pytest.approx(log(2) * bags[trainer.member, [4, 7]].sum().item() / 2)


class Stopper(TrainerCallback):
    """Ends a run after step 5."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise OSError("stopped by the test")


def interrupted_and_not(run_stage, data, monkeypatch, *options: str) -> tuple[Path, Path]:
    """The folder of a run that was stopped and went on, and of one that was not."""
    from rlhf.training.reward import recipe

    words = ("--use_peft", "--learning_rate", "1e-2", "--max_steps", "8", "--save_steps", "2",
             "--gradient_accumulation_steps", "2", "--lora_dropout", "0.2", *HELD,
             *options)  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(recipe, "callbacks", lambda settings: [*callbacks(settings), Stopper()])
        run_stage("reward", data, *words, out="broken", expect=4)
    broken = run_stage("reward", data, *words, out="broken")
    return broken, run_stage("reward", data, *words, out="unbroken")


def assert_same(one: Path, other: Path) -> None:
    for path in [*one.glob("*.safetensors"), *one.glob("member-*/*.safetensors")]:
        ours, theirs = load_file(path), load_file(other / path.relative_to(one))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert read_json(one / "log.json") == read_json(other / "log.json")
    assert metrics_of(one) == metrics_of(other)


def test_an_ensemble_goes_on_exactly_and_scores_as_it_did(run_stage, pairs, monkeypatch):
    options = ("--num_members", "2", "--member_bagging")
    broken, unbroken = interrupted_and_not(run_stage, pairs, monkeypatch, *options)
    assert (broken / "member-2" / "adapter_model.safetensors").exists()
    assert_same(broken, unbroken)
    spec = RewardSpec.read(broken)
    assert spec.members == ["default", "member-2"]
    rows = [json.loads(line) for line in (broken / "heldout.jsonl").read_text().splitlines()]
    scores = RewardModel.load(broken).member_scores(
        [row["prompt"] for row in rows], [row["chosen"] for row in rows]
    )
    noted = np.array([row["chosen_member_scores"] for row in rows]).T
    assert np.allclose(scores, noted, atol=1e-5)
    assert not np.allclose(noted[0], noted[1])
    assert np.allclose(noted.mean(0), [row["chosen_score"] for row in rows])


def test_a_whole_model_in_place_of_an_ensemble_is_loaded_as_itself(run_stage, pairs):
    run_stage("reward", pairs, "--use_peft", "--num_members", "2", *HELD)
    folder = run_stage("reward", pairs, "--use_peft", "false", "--restart", *HELD)
    rows = [json.loads(line) for line in (folder / "heldout.jsonl").read_text().splitlines()]
    scores = RewardModel.load(folder).score(
        [r["prompt"] for r in rows], [r["chosen"] for r in rows]
    )
    assert np.allclose(scores, [row["chosen_score"] for row in rows], atol=1e-5)


def test_rankings_go_on_exactly(run_stage, tmp_path, monkeypatch, capsys):
    rows = [
        row | {"group": f"g{index // 3}", "prompt": f"p{index // 3}"}
        for index, row in enumerate(rows_of(24))
    ]
    data = write_rows(tmp_path / "ranked.jsonl", rows)
    assert_same(*interrupted_and_not(run_stage, data, monkeypatch))
    said = capsys.readouterr().err
    assert "5 of 5 rankings keep their pairs in one optimizer step\n" in said  # 3 pairs of 4
    run_stage("reward", data, "--max_steps", "1", *HELD, out="small")
    said = capsys.readouterr().err
    assert "0 of 5 rankings keep their pairs in one optimizer step; for all of them" in said
    assert "needs 3 pairs or more" in said  # steps of one batch of 2


def test_early_stopping_keeps_and_loads_the_best_of_every_member(run_stage, pairs, monkeypatch):
    from rlhf.training.reward.trainer import GuardedRewardTrainer

    losses = {2: 0.6, 4: 0.4}
    predict = GuardedRewardTrainer.prediction_step

    def best_at_step_4(self, *args, **kwargs):
        loss, *rest = predict(self, *args, **kwargs)
        return (torch.full_like(loss, losses.get(self.state.global_step, 0.5)), *rest)

    monkeypatch.setattr(GuardedRewardTrainer, "prediction_step", best_at_step_4)
    options = ("--use_peft", "--num_members", "2", "--max_steps", "20", "--save_steps", "2",
               "--save_total_limit", "1", "--learning_rate", "1e-2", "--early_stopping_patience",
               "2", "--per_device_eval_batch_size", "99", *HELD)  # fmt: skip
    folder = run_stage("reward", pairs, *options)
    metrics = metrics_of(folder)
    assert (metrics["num_steps"], metrics["best_step"], metrics["stopped_early"]) == (8, 4, True)
    best = folder / "checkpoint-4"
    assert best.is_dir()
    for name in ("adapter_model.safetensors", "member-2/adapter_model.safetensors"):
        ours, theirs = load_file(folder / name), load_file(best / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    # killed after it had stopped, before its folder was written: it does not train on
    (folder / "manifest.json").unlink()
    again = run_stage("reward", pairs, *options)
    assert metrics_of(again) == metrics
    assert torch.equal(load_file(again / name)[key := next(iter(theirs))], theirs[key])


def test_early_stopping_goes_on_only_with_the_same_evaluations(run_stage, pairs, capsys):
    """What is kept is the best of what was evaluated: other steps would keep another model."""
    options = ("--use_peft", "--save_steps", "1", "--early_stopping_patience", "9", *HELD)
    folder = run_stage("reward", pairs, *options)
    (folder / "manifest.json").unlink()
    run_stage("reward", pairs, *options, "--save_steps", "2", expect=2)
    assert "holds another run (" in (said := capsys.readouterr().err)
    assert re.search(r"save_steps: 1(\.0)? there, 2(\.0)? here", said)


def test_a_best_checkpoint_that_is_gone_is_not_replaced_by_the_last_in_silence(
    run_stage, pairs, monkeypatch, capsys
):
    from rlhf.training.reward.trainer import GuardedRewardTrainer

    predict = GuardedRewardTrainer.prediction_step

    def worse_and_worse(self, *args, **kwargs):
        loss, *rest = predict(self, *args, **kwargs)
        return (torch.full_like(loss, 0.1 * self.state.global_step), *rest)

    monkeypatch.setattr(GuardedRewardTrainer, "prediction_step", worse_and_worse)
    options = ("--use_peft", "--save_steps", "1", "--early_stopping_patience", "9", *HELD)
    folder = run_stage("reward", pairs, *options)
    assert metrics_of(folder)["best_step"] == 1
    (folder / "manifest.json").unlink()
    (folder / "checkpoint-1" / "adapter_model.safetensors").unlink()  # damaged: not whole
    run_stage("reward", pairs, *options, expect=4)
    assert "checkpoint-1: the best checkpoint is gone" in capsys.readouterr().err


def test_a_loss_that_leaves_the_numbers_names_the_rows(run_stage, pairs, capsys):
    options = ("--use_peft", "--learning_rate", "1e30", "--max_grad_norm", "0", "--max_steps", "9")
    run_stage("reward", pairs, *options, "--save_steps", "1", expect=4)
    line = next(row for row in capsys.readouterr().err.splitlines() if row.startswith("rlhf "))
    assert line.count(f"{pairs}:") == 2  # both rows of the batch
    assert "; the last good checkpoint is " in line


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (rows_of(6, p_chosen=0.5), (), "all 6 pairs are ties (p_chosen 0.5)"),
        (
            [*rows_of(3, p_chosen=0.5), *rows_of(3, p_chosen=0.9, weight=0)],
            ("--labels", "hard"),
            "ties (p_chosen 0.5), left out; mend the data",
        ),
        (rows_of(6), ("--criteria", "x=1"), "better by 'x' (criteria in the rows: none)"),
        (
            [{"prompt": "p", "completion": "a", "label": True}] * 3,
            (),
            "all 3 rows are labelled true, so nothing says what is better than what",
        ),
    ],
)  # fmt: skip
def test_labels_that_tell_nothing_are_one_line(rows, options, message, run_stage, tmp_path, capsys):
    data = write_rows(tmp_path / "rows.jsonl", rows)
    run_stage("reward", data, "--eval_fraction", "0", *options, expect=3)
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num_members", "2"), "add --use_peft"),
        (("--num_members", "0"), "--num_members 0: must be at least 1"),
        (("--margin_scale", "inf"), "--margin_scale inf: must be at least 0 and finite"),
        (("--max_loss", "nan"), "--max_loss nan: must be a share of the rows, from 0 to 1"),
        (("--member_bagging",), "needs --num_members of at least 2"),
        (("--early_stopping_patience", "1", "--eval_fraction", "0"), "no row is held out"),
        (("--early_stopping_patience", "1", "--save_strategy", "no"), "needs --save_strategy"),
        (
            ("--early_stopping_patience", "1", "--eval_strategy", "steps", "--eval_steps", "3",
             "--save_steps", "4"),
            "--save_steps a multiple of --eval_steps",
        ),
    ],
)  # fmt: skip
def test_settings_that_exclude_each_other(options, message, run_stage, pairs, capsys):
    run_stage("reward", pairs, *options, expect=2)
    assert message in capsys.readouterr().err.splitlines()[-1]
