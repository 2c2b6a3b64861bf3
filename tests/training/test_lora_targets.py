"""`--lora_target_modules` of names that the model lacks: one line, before anything is written."""

import json

import pytest

from tests.training.conftest import write_rows

HAS = "it has: down_proj, embed_tokens, gate_proj, k_proj, "
QUICK = ["--use_peft", "--lora_r", "2", "--max_steps", "1"]


@pytest.fixture
def rewards(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text("def none(completions, **_):\n    return [0.0 for _ in completions]\n")
    return ["--reward_funcs", f"{path}:none", "--max_completion_length", "4"]


@pytest.fixture
def prompts(tmp_path):
    return write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"q {n}"} for n in range(8)])


def refused(capsys, folder) -> str:
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rlhf ")]
    assert len(said) == 1
    assert not folder.exists()
    return said[0]


@pytest.mark.parametrize("verb", ["sft", "dpo", "reward", "ppo"])
def test_unknown_name_is_one_line_in_every_stage(
    verb, run_stage, pairs, demos, prompts, rewards, capsys
):
    data = {"sft": demos, "ppo": prompts}.get(verb, pairs)
    extra = rewards if verb == "ppo" else []
    targets = ["--lora_target_modules", "q_proj", "v_prj"]
    folder = run_stage(verb, data, *QUICK, *extra, *targets, expect=2)
    error = refused(capsys, folder)
    assert "--lora_target_modules v_prj: the model has no module of that name" in error
    assert "did you mean 'v_proj'?" in error
    assert HAS in error
    assert ("score" in error.partition("it has")[2]) == (verb == "reward")


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["q_proj"], "one alone is a pattern of whole names; write '.*q_proj'"),
        ([".*q_prj"], "has no module of that name"),
        (["(q_proj"], "no regular expression"),
        (["al-linear"], "did you mean 'all-linear'?"),
    ],
)
def test_one_name_is_a_pattern(targets, words, run_stage, pairs, capsys):
    folder = run_stage("dpo", pairs, *QUICK, "--lora_target_modules", *targets, expect=2)
    assert words in refused(capsys, folder)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["q_proj", "v_proj"], {"q_proj", "v_proj"}),
        ([".*layers.0.*q_proj"], ".*layers.0.*q_proj"),
        (["all-linear"], None),
    ],
)
def test_names_that_are_there_are_trained(targets, expected, run_stage, pairs):
    folder = run_stage("dpo", pairs, *QUICK, "--lora_target_modules", *targets)
    found = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    if expected is not None:
        assert (set(found) if isinstance(found, list) else found) == expected
    assert found
