"""reward.json: what it says, what it may not say, and what happens when it does not hold."""

import json
import shutil

import pytest

from rlhf.errors import DataError
from rlhf.models.loading import load_tokenizer
from rlhf.models.reward_spec import RewardSpec, base_record, tokenizer_sha256
from rlhf.models.scoring import RewardModel
from tests.models.reward_models import save_reward
from tests.tiny import make_tiny_model


def test_a_folder_without_one_has_one_head_and_one_member(tmp_path):
    spec = RewardSpec.read(tmp_path)
    assert spec == RewardSpec()
    assert (spec.heads, spec.members, spec.rendering) == ({"score": 1.0}, ["default"], "chat")


def test_what_is_written_is_read(tmp_path):
    spec = RewardSpec(
        heads={"helpful": 2.0, "short": -0.5},
        rendering="plain",
        base={"path": "m", "sha256": "ab"},
        tokenizer_sha256="cd",
        max_length=512,
        score_mean=0.25,
        score_std=1.5,
    )
    spec.write(tmp_path)
    assert RewardSpec.read(tmp_path) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "not an object"),
        ('{"head": {"score": 1}}', "unknown key 'head'; did you mean 'heads'"),
        ('{"heads": {}}', "at least one head"),
        ('{"heads": {"helpful": "2"}}', "weight of head 'helpful' must be a number, not '2'"),
        ('{"heads": {"helpful": NaN}}', "weight of head 'helpful' must be a number"),
        ('{"heads": {"helpful": 0, "short": 0}}', "every score would be 0"),
        ('{"members": "default"}', "members must be a list"),
        ('{"members": ["default", "../elsewhere"]}', "not the name of a folder"),
        ('{"members": ["default", "default"]}', "names one adapter twice"),
        ('{"members": ["first"]}', "first of members must be 'default'"),
        ('{"rendering": "html"}', "rendering must be chat or plain"),
        ('{"base": "m"}', "base must be null or hold"),
        ('{"score_std": "1"}', "score_std must be a number or null, not '1'"),
        ('{"tokenizer_sha256": 5}', "tokenizer_sha256 must be text"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "reward.json").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        RewardSpec.read(tmp_path)
    assert "reward.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_would_be_refused_is_not_written(tmp_path):
    with pytest.raises(DataError, match="weight of head 'short'"):
        RewardSpec(heads={"short": float("inf")}).write(tmp_path)
    assert not (tmp_path / "reward.json").exists()


def test_another_base_of_the_same_shape_is_refused_by_both_names(tiny_model, tmp_path):
    folder = save_reward(tiny_model, tmp_path / "reward")
    other = make_tiny_model(tmp_path / "other", seed=7)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(other)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="with other weights") as error:
        RewardModel.load(folder)
    assert str(tiny_model) in str(error.value)
    assert str(other) in str(error.value)


def test_a_base_that_was_moved_is_the_same_base(tiny_model, tmp_path):
    base = shutil.copytree(tiny_model, tmp_path / "run" / "sft")
    folder = save_reward(base, tmp_path / "run" / "reward")
    before = RewardModel.load(folder).score(["Hi"], ["Wrap it."])
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere") / "reward"
    assert float(RewardModel.load(moved).score(["Hi"], ["Wrap it."]) - before) == 0.0


def test_another_tokenizer_or_template_is_refused(tiny_model, tmp_path):
    folder = save_reward(tiny_model, tmp_path / "reward")
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant", "bot")
    tokenizer.save_pretrained(folder)
    with pytest.raises(DataError, match="trained with another tokenizer or chat template"):
        RewardModel.load(folder)


def test_tokenizer_hash_outlives_saving_padding_and_the_pad_token(tiny_model, tmp_path):
    tokenizer = load_tokenizer(tiny_model)
    before = tokenizer_sha256(tokenizer)
    tokenizer(["a", "a longer one"], padding=True, truncation=True, max_length=8)
    assert tokenizer_sha256(tokenizer) == before
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer.save_pretrained(folder)
    assert tokenizer_sha256(load_tokenizer(folder)) == before
    tokenizer.eos_token = "<|im_start|>"
    assert tokenizer_sha256(tokenizer) != before


def test_heads_that_the_weights_do_not_have_are_refused(tiny_model, tmp_path):
    folder = save_reward(tiny_model, tmp_path / "reward", heads={"helpful": 1.0, "short": 1.0})
    RewardSpec(heads={"helpful": 1.0}).write(folder)
    with pytest.raises(
        DataError, match=r"head has 2 outputs, but by its reward.json .* 1 \(helpful\)"
    ):
        RewardModel.load(folder)


def test_base_record_names_the_weights(tiny_model):
    record = base_record(tiny_model)
    assert record["path"] == str(tiny_model)
    assert len(record["sha256"]) == 64
