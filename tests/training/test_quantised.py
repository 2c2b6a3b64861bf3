"""4-bit bases under LoRA: bitsandbytes computes them on a CPU too."""

import pytest
import torch

from rlhf.cli import main
from rlhf.models.loading import load_policy
from rlhf.models.scoring import RewardModel
from rlhf.training.arguments import parse_settings
from rlhf.training.base import load_base
from tests.tiny import make_tiny_model
from tests.training.conftest import QUICK, metrics_of, read_json

pytest.importorskip("bitsandbytes")


@pytest.mark.parametrize("verb", ["sft", "reward", "dpo"])
def test_a_4_bit_base_trains_and_its_output_loads(verb, pairs, tmp_path):
    model = make_tiny_model(tmp_path / "model", hidden_size=64)  # a block of 4-bit weights is 64
    folder = tmp_path / verb
    words = [verb, "--model_name_or_path", str(model), "--dataset_name", str(pairs), *QUICK]
    words += ["--output_dir", str(folder), "--use_peft", "--load_in_4bit", "--eval_fraction", "0.3"]
    base = load_base(parse_settings(verb, words[1:], example=""))
    assert type(base.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert main([*words, "--debug"]) == 0
    losses = [row["loss"] for row in read_json(folder / "log.json") if "loss" in row]
    assert len(losses) == 3
    assert metrics_of(folder)["num_steps"] == 3
    if verb == "reward":
        scorer = RewardModel.load(folder)
        assert scorer.model.base_model.model.score.weight.dtype == torch.float32
        assert scorer.score(["question 1?"], ["yes 1."]).isfinite().all()
    else:
        assert load_policy(folder)(torch.tensor([[1, 5, 6]])).logits.isfinite().all()


@pytest.mark.parametrize("verb", ["sft", "dpo"])
def test_a_4_bit_adapter_is_not_merged(verb, run_stage, pairs, capsys):
    adapter = run_stage("dpo", pairs, "--use_peft")
    options = ("--use_peft", "--load_in_4bit", "--model_name_or_path", str(adapter))
    run_stage(verb, pairs, *options, out="on-top", expect=2)
    assert "holds an adapter, which cannot be merged in 4 or 8 bits" in capsys.readouterr().err
