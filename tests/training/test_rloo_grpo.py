"""RLOO and GRPO by TRL, with our rewards, gate, checkpoints and manifest."""

import json
import os
import shutil
import signal

import pytest
import torch
from transformers import TrainerCallback

from rlhf.cli import main
from rlhf.data.tokenization import Renderer
from rlhf.models.loading import load_tokenizer
from rlhf.models.trl_compat import KeptRollouts, OrderByEpoch
from rlhf.training import online_trl
from rlhf.training.checkpoints import mark_complete
from rlhf.training.stage import callbacks
from tests.processes import run_alone, run_ranks
from tests.training.conftest import metrics_of, read_json, write_rows
from tests.training.gated_reward import gated_reward

ADAPTER = "adapter_model.safetensors"
VERBS = ("rloo", "grpo")
QUICK = [
    *("--use_peft", "--learning_rate", "1e-2", "--max_completion_length", "6"),
    *("--num_generations", "2", "--per_device_train_batch_size", "4"),
    *("--gradient_accumulation_steps", "1", "--max_loss", "1"),
]


@pytest.fixture
def prompts(tmp_path):
    """10 prompts, each with the answer that is wanted."""
    rows = [
        {"prompt": [{"role": "user", "content": f"question {number}?"}], "answer": f"{number}"}
        for number in range(10)
    ]
    return write_rows(tmp_path / "prompts.jsonl", rows)


@pytest.fixture
def functions(tmp_path):
    """Reward functions: one of length, one that keeps what it was called with."""
    path = tmp_path / "rewards.py"
    path.write_text(
        "import json, pathlib\n"
        "SEEN = pathlib.Path(__file__).with_name('seen.jsonl')\n"
        "def vowels(completions, **kwargs):\n"
        "    texts = [c if isinstance(c, str) else c[0]['content'] for c in completions]\n"
        "    return [float(sum(t.count(v) for v in 'aeiou')) for t in texts]\n"
        "def seen(prompts, completions, completion_ids, answer, ended, **kwargs):\n"
        "    rows = zip(prompts, completions, completion_ids, answer, ended)\n"
        "    with SEEN.open('a') as out:\n"
        "        out.writelines(json.dumps(row) + '\\n' for row in rows)\n"
        "    return [float(len(ids) % 3) + int(a) for ids, a in zip(completion_ids, answer)]\n"
        "def broken(**kwargs):\n"
        "    raise RuntimeError('no judge today')\n"
        "def tokens(completion_ids, **kwargs):\n"
        "    return [[0.5] * len(ids) for ids in completion_ids]\n"
    )
    return path


@pytest.mark.parametrize("verb", VERBS)
def test_it_learns_and_leaves_an_adapter_and_a_manifest(
    verb, run_stage, prompts, functions, tmp_path, tiny_model
):
    reward = gated_reward(tmp_path / "rewards", tiny_model, simulated=True)
    options = [*QUICK, "--reward_model_name_or_path", str(reward)]
    options += ["--reward_funcs", f"{functions}:seen", "--reward_weights", "0.5", "1"]
    folder = run_stage(verb, prompts, *options)
    assert (folder / ADAPTER).exists()
    assert (folder / "tokenizer_config.json").exists()
    manifest = read_json(folder / "manifest.json")
    assert manifest["simulated"] is True
    assert manifest["inputs"]["reward reward"]["path"] == str(reward)
    names = [(each["name"], each["weight"]) for each in manifest["provenance"]["rewards"]]
    assert names == [("reward", 0.5), ("seen", 1.0)]
    assert manifest["provenance"]["rewards"][0]["gate"]["passed"] is True
    metrics = manifest["metrics"]
    assert metrics["num_steps"] == 3
    assert {"reward", "score", "completion_length", "ended_rate", "repetition"} <= set(metrics)
    assert metrics["score_ci_low"] <= metrics["score"] <= metrics["score_ci_high"]
    assert metrics["score"] == pytest.approx(metrics["reward"])
    assert 0 <= metrics["ended_rate"] <= 1
    rows = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    for prompt, completion, ids, answer, ended in rows:
        assert prompt[0]["content"] == f"question {answer}?"
        assert completion[0]["role"] == "assistant"
        assert len(ids) <= 6
        assert ended or len(ids) == 6
    log = read_json(folder / "log.json")
    assert {"score/reward", "score/seen", "ended_rate"} <= set(log[0])


@pytest.mark.parametrize(("verb", "weight"), [("rloo", 1), ("grpo", -1)])
def test_what_is_rewarded_becomes_more_and_what_is_punished_less(
    verb, weight, run_stage, prompts, functions
):
    functions.write_text(
        "def low(completion_ids, **kwargs):\n"
        "    return [sum(i < 150 for i in ids) / len(ids) for ids in completion_ids]\n"
    )
    options = [*QUICK, "--reward_funcs", f"{functions}:low", "--reward_weights", str(weight)]
    options += ["--missing_eos_penalty", "0", "--beta", "0", "--lora_target_modules", "all-linear"]
    options += ["--num_generations", "8", "--per_device_train_batch_size", "32"]
    options += ["--learning_rate", "3e-2", "--lr_scheduler_type", "constant", "--max_steps", "30"]
    rows = read_json(run_stage(verb, prompts, *options) / "log.json")
    shares = [row["score/low"] for row in rows]
    before, after = sum(shares[:5]) / 5, sum(shares[-10:]) / 10
    assert weight * (after - before) > 0.1


# Continued runs

# A rollout is of 4 prompts and gives 4 steps, an epoch of 10 prompts 8 (2 are left out each time).
LONG = [
    *("--steps_per_generation", "2", "--num_iterations", "2", "--max_steps", "14"),
    *("--save_steps", "5", "--logging_steps", "2", "--lora_dropout", "0.2"),
    *("--reward_normalization", "running"),
]


class Killer(TrainerCallback):
    """Kills its own process, as kill -9 does. The last checkpoint before step 13 is that of 10: in
    epoch 1, in the middle of a rollout.
    """

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 13:
            os.kill(os.getpid(), signal.SIGKILL)


def run_until_killed(words):
    online_trl.callbacks = lambda settings: [*callbacks(settings), Killer()]
    return main(words)


class Stopper(TrainerCallback):
    """Ends a run at a step, as a full disk would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise OSError("stopped by the test")


def test_killed_and_continued_equals_unbroken(run_stage, prompts, functions, tiny_model, tmp_path):
    options = [*QUICK, *LONG, "--beta", "0.1", "--reward_funcs", f"{functions}:vowels"]
    broken = tmp_path / "broken"
    words = ["grpo", "--model_name_or_path", str(tiny_model), "--dataset_name", str(prompts)]
    words += ["--output_dir", str(broken), *options]
    ended = run_alone(tmp_path / "said", run_until_killed, words)
    assert ended.exit_code == -signal.SIGKILL, ended.stderr
    assert (broken / "checkpoint-10" / "complete.json").exists()
    assert not (broken / "manifest.json").exists()
    run_stage("grpo", prompts, *options, out="broken")
    assert_same_outcome(broken, run_stage("grpo", prompts, *options, out="unbroken"))


@pytest.mark.parametrize(("step", "save"), [(7, 4), (9, 8), (14, 7)])
def test_stopped_and_continued_equals_unbroken(
    step, save, run_stage, prompts, functions, monkeypatch
):
    """At a rollout's end, at an epoch's, and within a rollout."""
    options = [*QUICK, *LONG, "--save_steps", str(save)]
    options += ["--reward_funcs", f"{functions}:vowels"]
    with monkeypatch.context() as patched:
        found = lambda settings: [*callbacks(settings), Stopper(step)]  # noqa: E731
        patched.setattr(online_trl, "callbacks", found)
        run_stage("rloo", prompts, *options, out="broken", expect=4)
    broken = run_stage("rloo", prompts, *options, out="broken")
    assert_same_outcome(broken, run_stage("rloo", prompts, *options, out="unbroken"))


@pytest.mark.long
def test_two_processes_continued_equal_two_that_were_not(prompts, functions, tiny_model, tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    words = ["rloo", "--model_name_or_path", str(tiny_model), "--dataset_name", str(prompts)]
    options = [*QUICK, *LONG, "--per_device_train_batch_size", "2"]
    options += ["--reward_funcs", f"{functions}:vowels"]

    def run(folder):
        given = [*words, "--output_dir", str(folder), *options]
        ended = run_ranks(2, tmp_path / "said", main, given)
        assert [one.exit_code for one in ended] == [0, 0], [one.stderr for one in ended]

    run(unbroken)
    shutil.copytree(unbroken, broken)
    for path in (broken / "manifest.json", broken / ADAPTER):
        path.unlink()
    shutil.rmtree(broken / "checkpoint-14")  # and goes on from 10, within epoch 1 and a rollout
    run(broken)
    assert_same_outcome(broken, unbroken)


def assert_same_outcome(one, other):
    assert (one / ADAPTER).read_bytes() == (other / ADAPTER).read_bytes()
    assert log_of(one) == log_of(other)
    assert metrics_of(one) == metrics_of(other)


def log_of(folder):
    """The log without the seconds of a step, which no two runs share."""
    rows = read_json(folder / "log.json")
    assert rows
    return [{key: row[key] for key in row if key != "step_time"} for row in rows]


def test_every_epoch_has_an_order_of_its_own_that_its_number_gives():
    from trl.trainer.utils import RepeatSampler

    epoch = 0

    def order(number):
        nonlocal epoch
        epoch = number
        return list(OrderByEpoch(RepeatSampler(range(9), 1, 9, seed=3), lambda: epoch))

    assert order(0) == list(RepeatSampler(range(9), 1, 9, seed=3))  # the first is TRL's own
    assert order(1) != order(0)
    assert sorted(order(1)) == list(range(9))
    assert order(1) == order(1)


def test_a_checkpoint_without_its_rollout_is_refused(run_stage, prompts, functions, capsys):
    options = [*QUICK, *LONG, "--reward_funcs", f"{functions}:vowels"]
    folder = run_stage("rloo", prompts, *options)
    (folder / "manifest.json").unlink()
    for number in (10, 14):
        checkpoint = folder / f"checkpoint-{number}"
        (checkpoint / "rollout_0.pt").unlink()
        mark_complete(checkpoint)  # as a copy that lost a file and whose marker was made anew
    run_stage("rloo", prompts, *options, expect=3)
    assert "lacks rollout_0.pt" in capsys.readouterr().err


# What is refused


def refused(capsys):
    """The line that a person sees."""
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("rlhf ")]
    return line


@pytest.mark.parametrize("verb", VERBS)
def test_a_reward_model_without_a_passed_gate_is_refused_with_5(
    verb, run_stage, prompts, tmp_path, tiny_model, capsys
):
    reward = gated_reward(tmp_path / "rewards", tiny_model, passed=False)
    options = [*QUICK, "--reward_model_name_or_path", str(reward)]
    folder = run_stage(verb, prompts, *options, expect=5)
    assert "the gate failed (accuracy)" in refused(capsys)
    assert not folder.exists()


def test_a_function_that_raises_ends_the_run_and_mended_it_goes_on(
    run_stage, prompts, functions, capsys
):
    options = [*QUICK, "--save_steps", "1", "--reward_funcs", f"{functions}:vowels"]
    whole = functions.read_text()
    functions.write_text(
        whole.replace(
            "return [float(sum",
            "1 / (len(kwargs['trainer_state'].log_history) < 2); return [float(sum",
        )
    )
    folder = run_stage("rloo", prompts, *options, expect=4)
    assert "the reward function 'vowels' raised ZeroDivisionError" in refused(capsys)
    functions.write_text(whole)
    run_stage("rloo", prompts, *options)
    assert f"continuing from {folder / 'checkpoint-2'}" in capsys.readouterr().err
    assert metrics_of(folder)["num_steps"] == 3


def test_constant_rewards_are_said(run_stage, prompts, functions, capsys):
    functions.write_text("def flat(prompts, **kwargs):\n    return [1.0 for _ in prompts]\n")
    run_stage("rloo", prompts, *QUICK, "--reward_funcs", f"{functions}:flat")
    said = capsys.readouterr().err
    assert said.count("all 4 rewards are the same number (1): nothing to learn from") == 1


def test_too_few_prompts_for_a_rollout(run_stage, prompts, functions, capsys):
    options = [
        *QUICK,
        "--gradient_accumulation_steps",
        "8",
        "--reward_funcs",
        f"{functions}:vowels",
    ]
    folder = run_stage("grpo", prompts, *options, expect=3)
    assert "10 prompts, and a rollout takes 16" in refused(capsys)
    assert not folder.exists()


def test_prompts_without_room_are_counted(run_stage, tmp_path, functions, capsys):
    rows = [{"prompt": "short"}] * 5 + [{"prompt": "long " * 600}]
    data = write_rows(tmp_path / "p.jsonl", rows)
    options = [*QUICK, "--reward_funcs", f"{functions}:vowels"]
    run_stage("rloo", data, *options, "--max_loss", "0.1", expect=5)
    assert "--max_completion_length" in refused(capsys)
    folder = run_stage("rloo", data, *options)
    assert read_json(folder / "manifest.json")["provenance"]["losses"]["num_lost"] == 1
    assert metrics_of(folder)["num_train"] == 5


def test_an_adapter_with_all_weights_trained_has_no_reference(
    run_stage, prompts, functions, capsys
):
    options = [*QUICK, "--reward_funcs", f"{functions}:vowels"]
    first = run_stage("rloo", prompts, *options, out="first")
    whole = [
        "--model_name_or_path",
        str(first),
        *[each for each in options if each != "--use_peft"],
    ]
    capsys.readouterr()
    run_stage("rloo", prompts, *whole, out="second", expect=2)
    assert "its reference would be without it" in refused(capsys)


# What TRL is given


def test_token_scores_are_summed_and_weights_are_not_applied_twice(run_stage, prompts, functions):
    """All completions are of 1 to 6 tokens at 0.5 each: twice the weight 2 would be beyond 6."""
    options = [*QUICK, "--reward_funcs", f"{functions}:tokens", "--reward_weights", "2"]
    folder = run_stage("grpo", prompts, *options, "--missing_eos_penalty", "0")
    for row in read_json(folder / "log.json"):
        assert row["reward"] == pytest.approx(row["completions/mean_length"])
        assert row["score/tokens"] == pytest.approx(row["reward"] / 2)


def test_penalties_reach_the_reward(run_stage, prompts, functions):
    functions.write_text("def flat(prompts, **kwargs):\n    return [1.0 for _ in prompts]\n")
    options = [*QUICK, "--reward_funcs", f"{functions}:flat", "--length_penalty", "0.25"]
    folder = run_stage("rloo", prompts, *options, "--missing_eos_penalty", "3")
    for row in read_json(folder / "log.json"):
        expected = 1 - 3 * (1 - row["ended_rate"]) - 0.25 * row["completions/mean_length"]
        assert row["reward"] == pytest.approx(expected)


def test_held_out_prompts_are_measured_and_teach_no_statistics(run_stage, prompts, functions):
    options = [*QUICK, "--reward_funcs", f"{functions}:vowels", "--eval_fraction", "0.5"]
    options += ["--reward_normalization", "running", "--per_device_eval_batch_size", "2"]
    folder = run_stage("rloo", prompts, *options, "--eval_strategy", "steps", "--eval_steps", "1")
    metrics = metrics_of(folder)
    assert metrics["num_train"] + metrics["num_eval"] == 10
    assert "eval_reward" in metrics
    kept = torch.load(folder / "checkpoint-3" / "rollout_0.pt", weights_only=True)
    assert kept["rewards"]["moments"]["vowels"]["count"] == 3 * 4  # steps of 4 completions


def test_measuring_takes_whole_groups(run_stage, prompts, functions, capsys):
    options = [*QUICK, "--reward_funcs", f"{functions}:vowels", "--eval_fraction", "0.5"]
    run_stage("rloo", prompts, *options, "--per_device_eval_batch_size", "3", expect=2)
    assert "--per_device_eval_batch_size 3" in refused(capsys)


def test_at_the_start_the_policy_is_the_reference(run_stage, prompts, functions):
    """LoRA begins at nothing, so the first KL is 0; then it moves away."""
    options = [*QUICK, "--reward_funcs", f"{functions}:vowels", "--beta", "0.1"]
    rows = read_json(run_stage("grpo", prompts, *options) / "log.json")
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["kl"] > 0


def test_the_manifests_kl_is_that_of_a_completion(run_stage, prompts, functions):
    options = [*QUICK, "--reward_funcs", f"{functions}:vowels", "--beta", "0.1"]
    folder = run_stage("grpo", prompts, *options)
    rows = read_json(folder / "log.json")
    expected = sum(row["kl"] * row["completions/mean_length"] for row in rows) / 3
    assert metrics_of(folder)["kl"] == pytest.approx(expected)


def test_prompts_become_the_ids_of_a_rollout(tiny_model):
    class Trainer(KeptRollouts):
        renderer = Renderer(load_tokenizer(tiny_model), "plain")

    prompt = [{"role": "user", "content": "Bread?"}]
    ids, images, fields = Trainer()._tokenize_prompts([prompt, "as it stands"])
    tokenizer = Trainer.renderer.tokenizer
    texts = ["\n\nHuman: Bread?\n\nAssistant: ", "as it stands"]
    assert [tokenizer.decode(each) for each in ids] == texts
    assert (images, fields) == (None, {})


def test_texts_and_messages_in_one_data_set_are_refused(run_stage, functions, tmp_path, capsys):
    rows = [{"prompt": "Why?"}, *({"prompt": [{"role": "user", "content": "How?"}]},) * 9]
    mixed = write_rows(tmp_path / "mixed.jsonl", rows)
    run_stage("grpo", mixed, *QUICK, "--reward_funcs", f"{functions}:tokens", expect=3)
    assert "1 prompts are text and 9 are messages" in capsys.readouterr().err
