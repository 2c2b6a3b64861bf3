"""Scores survive padding, company, saving, loading and merging; damage to any of these shows."""

import json

import pytest
import torch

from rlhf.errors import ConfigError
from rlhf.models.loading import load_reward_model
from rlhf.models.reward_roundtrip import merged, roundtrip_gaps, save_merged
from rlhf.models.reward_spec import RewardSpec
from rlhf.models.scoring import RewardModel
from tests.models.reward_models import save_reward

HEADS = {"helpful": 2.0, "short": -0.5}
PROMPTS = ["Hi", [{"role": "user", "content": "How do I keep bread fresh?"}], "What to cook?"]
COMPLETIONS = ["Wrap it.", "", "Pasta with tomatoes, garlic and a little oil is quick."]


@pytest.fixture(scope="module")
def ensemble(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble") / "reward"
    return save_reward(tiny_model, folder, num_members=2, heads=HEADS)


def test_an_ensemble_with_two_heads_keeps_its_scores(ensemble, tmp_path):
    gaps = roundtrip_gaps(ensemble, PROMPTS, COMPLETIONS, [True, True, False], scratch=tmp_path)
    assert set(gaps) == {"padding", "batch", "loaded", "merged"}
    assert gaps["loaded"] == 0.0
    assert max(gaps.values()) < 1e-5
    assert list(tmp_path.iterdir()) == []


def test_one_member_merged_is_a_whole_model_with_its_head_and_scores(ensemble, tmp_path):
    expected = RewardModel.load(ensemble).all_scores(PROMPTS, COMPLETIONS).raw
    save_merged(ensemble, tmp_path / "whole", "member-2")
    whole = RewardModel.load(tmp_path / "whole")
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    assert whole.spec.heads == HEADS
    found = whole.all_scores(PROMPTS, COMPLETIONS).raw
    torch.testing.assert_close(found, expected[1:], atol=1e-5, rtol=0)
    assert float((found - expected[:1]).abs().max()) > 1e-3
    assert roundtrip_gaps(tmp_path / "whole", PROMPTS, COMPLETIONS)["merged"] is None


def test_merging_in_less_than_fp32_is_refused(ensemble):
    with pytest.raises(ConfigError, match="merged in fp32"):
        merged(load_reward_model(ensemble, dtype="bfloat16"))


def test_a_head_lost_on_the_way_shows(ensemble, monkeypatch):
    """What merging without the head would leave: the base's own random one."""
    from rlhf.models import reward_roundtrip

    def without_head(folder, output, member) -> None:
        save_merged(folder, output, member)
        model = load_reward_model(output)
        model.score.weight.data.zero_()
        model.save_pretrained(output)

    monkeypatch.setattr(reward_roundtrip, "save_merged", without_head)
    assert roundtrip_gaps(ensemble, PROMPTS, COMPLETIONS)["merged"] > 1e-2


def test_score_is_the_declared_weighting_of_the_heads(ensemble):
    model = RewardModel.load(ensemble)
    heads = model.head_scores(PROMPTS, COMPLETIONS)
    assert heads.shape == (3, 2)
    expected = 2.0 * heads[:, 0] - 0.5 * heads[:, 1]
    torch.testing.assert_close(model.score(PROMPTS, COMPLETIONS), expected)


def test_the_specs_rendering_is_what_scores(ensemble, tiny_model, tmp_path):
    folder = save_reward(tiny_model, tmp_path / "reward")
    asked = [{"role": "user", "content": "Hi"}]
    chat = RewardModel.load(folder).score([asked], ["Wrap it."])
    spec = json.loads((folder / "reward.json").read_text()) | {"rendering": "plain"}
    (folder / "reward.json").write_text(json.dumps(spec))
    assert RewardSpec.read(folder).rendering == "plain"
    plain = RewardModel.load(folder)
    ids = plain.tokenizer("\n\nHuman: Hi\n\nAssistant: ")["input_ids"]
    ids += plain.tokenizer("Wrap it.")["input_ids"] + [plain.tokenizer.eos_token_id]
    torch.testing.assert_close(plain.score([asked], ["Wrap it."]), plain.score_ids([ids]))
    assert abs(float(plain.score([asked], ["Wrap it."]) - chat)) > 1e-4
