"""A stage never writes over what it reads, and can train all of what it merged."""

from pathlib import Path

import pytest

from rlhf.errors import ConfigError
from rlhf.training.arguments import parse_settings
from rlhf.training.base import load_base
from rlhf.training.stage import refuse_own_inputs
from tests.training.gated_reward import gated_reward


@pytest.mark.parametrize("verb", ["ppo", "grpo"])
@pytest.mark.parametrize("output", ["reward", "reward/inside", "gate", "."])
def test_neither_a_reward_model_nor_its_gate_is_written_over(verb, output, tmp_path, tiny_model):
    reward = gated_reward(tmp_path / "rewards", tiny_model)
    words = ["--dataset_name", "d", "--model_name_or_path", str(tiny_model), "--restart", "true"]
    words += ["--reward_model_name_or_path", str(reward)]

    def settings(folder: Path):
        return parse_settings(verb, [*words, "--output_dir", str(folder)], example="")

    refuse_own_inputs(settings(tmp_path / "rewards" / "policy"))
    with pytest.raises(ConfigError, match=r"and the (reward model|gate) .*lie in one another"):
        refuse_own_inputs(settings(tmp_path / "rewards" / output))


def test_the_folder_of_the_data_is_not_written_into(pairs, run_stage, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    pairs.rename(tmp_path / "data" / "log.json")  # as a stage calls its own
    run_stage("dpo", tmp_path / "data", out="data", expect=2)
    assert "it is the folder of the data" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["log.json"]


@pytest.mark.parametrize("peft", [True, False])
def test_an_adapter_is_merged_into_weights_that_can_be_trained(peft, run_stage, pairs):
    tuned = run_stage("dpo", pairs, "--use_peft", "--max_steps", "1")
    words = ["--dataset_name", "d", "--model_name_or_path", str(tuned)]
    words += ["--use_peft"] if peft else []
    model = load_base(parse_settings("dpo", words, example=""))
    assert {weight.requires_grad for weight in model.parameters()} == {not peft}
