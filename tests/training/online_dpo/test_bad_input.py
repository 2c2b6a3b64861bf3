"""What online DPO refuses, each in one line, before anything is written."""

import pytest

from rlhf.cli import main
from rlhf.cli.online_dpo import parse
from rlhf.errors import ConfigError
from rlhf.training.online_dpo import trainer
from tests.training.conftest import write_rows
from tests.training.gated_reward import gated_reward

START = ["--model_name_or_path", "m", "--dataset_name", "d"]
FUNCTION = ["--reward_funcs", "package.function"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no source of labels: give --reward_model_name_or_path"),
        ([*FUNCTION, "--judge", "a.b"], "--judge: compares completions"),
        (["--judge", "a.b", "--judge_url", "http://h/v1"], "name one judge"),
        (["--judge_url", "http://h/v1"], "needs --judge_model"),
        (["--judge", "a.b", "--judge_model", "m"], "--judge_model: needs --judge_url"),
        (["--judge_url", "ftp://h", "--judge_model", "m"], "must begin with http"),
        (["--judge", "a.b", "--judge_timeout_s", "0"], "--judge_timeout_s 0.0: must be above 0"),
        (["--judge", "a.b", "--soft_label_scale", "1"], "--soft_label_scale: a judge's gap"),
        ([*FUNCTION, "--soft_label_scale", "0"], "--soft_label_scale 0.0: must be above 0"),
        ([*FUNCTION, "--soft_label_scale", "1", "--loss_type", "aot"], "--loss_type aot"),
        ([*FUNCTION, "--num_generations", "1"], "--num_generations 1: must be at least 2"),
        ([*FUNCTION, "--num_rounds", "0"], "--num_rounds 0: must be at least 1"),
        ([*FUNCTION, "--prompts_per_round", "0"], "--prompts_per_round 0: must be at least 1"),
        ([*FUNCTION, "--temperature", "0"], "--temperature 0.0: must be above 0"),
        ([*FUNCTION, "--rollout_batch_size", "0"], "--rollout_batch_size 0: must be at least 1"),
        ([*FUNCTION, "--max_completion_length", "0"], "--max_completion_length 0"),
        ([*FUNCTION, "--max_length", "64"], "--max_length 64: prompt and completion together"),
        ([*FUNCTION, "--reward_weights", "1", "2"], "2 for 1 sources"),
        ([*FUNCTION, "--missing_eos_penalty", "-1"], "--missing_eos_penalty -1.0"),
        ([*FUNCTION, "--num_train_epochs", "0.5"], "--num_train_epochs 0.5: passes over each"),
        ([*FUNCTION, "--beta", "0"], "--beta 0.0: must be above 0"),
        ([*FUNCTION, "--loss_type", "nonsense"], "--loss_type nonsense: no loss of TRL's"),
        ([*FUNCTION, "--precompute_ref_log_probs"], "--precompute_ref_log_probs: not for online"),
        ([*FUNCTION, "--eval_strategy", "steps", "--eval_fraction", "0.1"], "--eval_strategy"),
        ([*FUNCTION, "--fp16"], "--fp16: not for online DPO: its loss scaler"),
        ([*FUNCTION, "--save_strategy", "best"], "--save_strategy best"),
        ([*FUNCTION, "--rollout_cop", "never"], "did you mean 'rollout_copy'"),
        ([*FUNCTION, "--rollout_copy", "sometimes"], "sometimes"),
    ],
)
def test_settings_that_cannot_be_meant(options, words):
    with pytest.raises(ConfigError) as caught:
        parse([*START, *options])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def refused(capsys):
    """The line that a person sees."""
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("rlhf ")]
    return line


def test_a_reward_model_without_a_passed_gate_is_refused_with_5(run, tmp_path, tiny_model, capsys):
    reward = gated_reward(tmp_path / "rewards", tiny_model, passed=False)
    folder = run("--reward_model_name_or_path", str(reward), expect=5)
    assert "the gate failed (accuracy)" in refused(capsys)
    assert not folder.exists()


def test_more_rounds_than_prompts(run, functions, capsys):
    folder = run("--reward_funcs", f"{functions}:low", "--num_rounds", "13", expect=3)
    assert "12 prompts for 13 rounds" in refused(capsys)
    assert not folder.exists()


def test_a_round_of_more_prompts_than_there_are(run, functions, capsys):
    run("--reward_funcs", f"{functions}:low", "--prompts_per_round", "13", expect=3)
    assert "12 prompts, and --prompts_per_round is 13" in refused(capsys)


def test_a_judge_or_a_function_that_is_missing(run, functions, capsys):
    folder = run("--judge", "no.such.judge", expect=2)
    assert "--judge no.such.judge: cannot be imported" in refused(capsys)
    run("--reward_funcs", "no.such.function", expect=2)
    assert "--reward_funcs no.such.function: cannot be imported" in refused(capsys)
    assert not folder.exists()


def test_completions_that_are_all_empty(run, functions, capsys, monkeypatch):
    """A policy that ends at once."""
    from rlhf.models.rollouts.merged_copy import MergedCopy

    sample = MergedCopy.sample

    def ends_at_once(self, *args, **kwargs):
        drawn = sample(self, *args, **kwargs)
        end = self.sampling.end_ids[0]
        return [type(one)([end], True, one.logps[:1]) for one in drawn]

    monkeypatch.setattr(MergedCopy, "sample", ends_at_once)
    run("--reward_funcs", f"{functions}:low", expect=4)
    assert "round 1 of 2: all 18 completions are empty" in refused(capsys)


def test_prompts_without_room_are_counted(run, functions, tmp_path, capsys):
    rows = [{"prompt": f"short {n}"} for n in range(5)] + [{"prompt": "long " * 60}]
    data = ["--dataset_name", str(write_rows(tmp_path / "p.jsonl", rows))]
    options = [*data, "--reward_funcs", f"{functions}:low", "--max_length", "64"]
    run(*options, "--max_loss", "0.1", expect=5)
    assert "--max_completion_length" in refused(capsys)
    run(*options)
    assert "1 of 6 rows lost" in capsys.readouterr().err


def test_a_function_that_raises_ends_the_run_and_mended_it_goes_on(run, functions, capsys):
    whole = functions.read_text()
    broken = "1 / (kwargs['trainer_state'].global_step == 0); return [float(sum(t.count"
    functions.write_text(whole.replace("return [float(sum(t.count", broken))
    folder = run("--reward_funcs", f"{functions}:vowels", expect=4)
    assert "the reward function 'vowels' raised ZeroDivisionError" in refused(capsys)
    functions.write_text(whole)
    run("--reward_funcs", f"{functions}:vowels")
    assert f"continuing from {folder / 'checkpoint-3'}" in capsys.readouterr().err


def test_the_doctor_reads_the_prompts_of_a_round(prompts, tiny_model, tmp_path, capsys):
    config = tmp_path / "my_online_dpo.yaml"
    config.write_text(f"model_name_or_path: {tiny_model}\ndataset_name: {prompts}\n")
    words = ["doctor", "--config", str(config), "--reward_funcs", "package.function"]
    assert main([*words, "--max_completion_length", "20"]) == 0
    assert "online_dpo: " in capsys.readouterr().out
    assert main([*words, "--max_completion_length", "505"]) == 3  # no prompt has room
    assert "no usable row" in refused(capsys)


def test_weights_that_are_sharded_are_refused(run, functions, capsys, monkeypatch):
    """As DeepSpeed's ZeRO-3 marks them."""
    make_engine = trainer.make_engine

    def sharded(model, *args, **kwargs):
        next(model.parameters()).ds_id = 1
        return make_engine(model, *args, **kwargs)

    monkeypatch.setattr(trainer, "make_engine", sharded)
    run("--reward_funcs", f"{functions}:low", "--rollout_copy", "never", expect=2)
    assert "these are sharded over processes; use multi_gpu" in refused(capsys)
