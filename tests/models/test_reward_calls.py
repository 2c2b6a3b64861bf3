"""A reward model as TRL's reward function: its arguments, and a real step of GRPO."""

import pytest
import torch

from rlhf.errors import DataError
from rlhf.models.reward_calls import ended_flags, split_turns
from rlhf.models.scoring import RewardModel
from tests.models.reward_models import save_reward

# PEFT 0.21 and accelerate still read old names; nothing of ours does.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

ASKED = [{"role": "user", "content": "How do I keep bread fresh?"}]


@pytest.fixture(scope="module")
def reward(tiny_model, tmp_path_factory):
    return RewardModel.load(save_reward(tiny_model, tmp_path_factory.mktemp("calls") / "my-reward"))


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_text_and_messages_give_the_scores_of_their_last_turn(reward):
    expected = reward.score([ASKED, "Hi"], ["Wrap it.", "No."]).tolist()
    found = reward(prompts=[ASKED, "Hi"], completions=[said("Wrap it."), "No."])
    assert found == pytest.approx(expected, abs=1e-6)
    assert all(isinstance(score, float) for score in found)


def test_a_lone_text_is_refused_rather_than_scored_by_its_characters(reward):
    for prompts, completions in (("Hi?", "No."), (["Hi?"], "No.")):
        with pytest.raises(DataError, match="must be a list with one for each completion"):
            reward.score(prompts, completions)


def test_turns_before_the_last_belong_to_the_prompt():
    tool = [{"role": "assistant", "content": "let me look"}, {"role": "tool", "content": "42"}]
    prompts, texts = split_turns([ASKED, "Hi"], [[*tool, *said("42")], [*tool, *said("42")]])
    assert texts == ["42", "42"]
    assert prompts == [[*ASKED, *tool], [{"role": "user", "content": "Hi"}, *tool]]


@pytest.mark.parametrize(
    "completion",
    [[], [{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": None}], ["Hi"]],
)
def test_what_is_no_completion_is_refused(completion):
    with pytest.raises(DataError, match="completion 0: must be text, or messages"):
        split_turns(["Hi"], [completion])


def test_a_cut_completion_is_known_by_its_ids_or_by_its_column(reward):
    tokenizer, text = reward.tokenizer, "Wrap it."
    ids = tokenizer(text)["input_ids"]
    ended, cut = reward.score(["Hi"] * 2, [text] * 2, [True, False]).tolist()
    whole = [*ids, tokenizer.eos_token_id]
    found = reward(prompts=["Hi"] * 2, completions=[text] * 2, completion_ids=[whole, ids])
    assert found == pytest.approx([ended, cut], abs=1e-6)
    found = reward(["Hi"] * 2, [text] * 2, completion_ids=[whole, ids], ended=[False, True])
    assert found == pytest.approx([cut, ended], abs=1e-6)


def test_ids_of_another_tokenizer_say_nothing(reward):
    ids = [[7, 8, 9]]
    assert ended_flags(["Wrap it."], ids, {}, reward.tokenizer, {2}) == [None]
    assert ended_flags([""], [[2]], {}, reward.tokenizer, {2}) == [True]
    assert ended_flags([""], [[]], {}, reward.tokenizer, {2}) == [False]


def test_sampled_ids_are_scored_where_they_are_the_text(reward):
    """A policy may sample a word in other pieces than the tokenizer would cut it into."""
    tokenizer, text = reward.tokenizer, "Wrap it."
    pieces = [tokenizer(one)["input_ids"][0] for one in text]
    end = tokenizer.eos_token_id
    assert pieces != tokenizer(text)["input_ids"]
    prompt = reward.renderer.prompt_ids(ASKED)
    rows = [[*prompt, *pieces, end], [*prompt, *pieces]]
    expected = reward.score_ids(rows).tolist()
    whole = reward.score([ASKED] * 2, [text] * 2, [True, False]).tolist()
    assert expected != pytest.approx(whole, abs=1e-3)
    sampled = [[*pieces, end], pieces]
    found = reward([ASKED] * 2, [said(text)] * 2, completion_ids=sampled)
    assert found == pytest.approx(expected, abs=1e-6)
    scores = reward.all_scores([ASKED] * 2, [text] * 2, [True, False], completion_ids=sampled)
    assert scores.mean.tolist() == pytest.approx(expected, abs=1e-6)
    # Of what is not this text, or ends otherwise than it is said to, the text is scored.
    others = [[7, 8, end], [10**6, end], [*pieces], []]
    for other in others:
        found = reward.all_scores([ASKED], [text], [True], completion_ids=[other])
        assert found.mean.tolist() == pytest.approx(whole[:1], abs=1e-6)


def test_a_column_ended_that_is_something_else_is_refused(reward):
    with pytest.raises(DataError, match="column 'ended' must be true or false"):
        reward(["Hi"], ["No."], ended=[[True, False]])


@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("conversational", [False, True])
def test_grpo_learns_from_it(reward, tiny_model, tmp_path, conversational, monkeypatch):
    """A real step of TRL's GRPOTrainer: it calls us, logs us by the folder's name."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    prompt = ASKED if conversational else "How do I"
    calls = []
    original = RewardModel.__call__

    def noted(self, prompts, completions, completion_ids=None, **columns):
        scores = original(self, prompts, completions, completion_ids, **columns)
        calls.append((prompts, completions, completion_ids, columns, scores))
        return scores

    monkeypatch.setattr(RewardModel, "__call__", noted)
    arguments = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=4,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        logging_steps=1,
        save_strategy="no",
    )
    rows = Dataset.from_list([{"prompt": prompt, "topic": "bread"}] * 4)
    trainer = GRPOTrainer(
        model=str(tiny_model), reward_funcs=reward, args=arguments, train_dataset=rows
    )
    trainer.train()
    prompts, completions, completion_ids, columns, scores = calls[0]
    assert prompts == [prompt] * 2
    assert columns["topic"] == ["bread"] * 2
    assert all(isinstance(one, list) == conversational for one in completions)
    asked = reward.renderer.prompt_ids(prompt)
    sampled = reward.score_ids([[*asked, *ids] for ids in completion_ids])
    assert scores == pytest.approx(sampled.tolist(), abs=1e-5)
    logged = [row["rewards/my-reward/mean"] for row in trainer.state.log_history if "reward" in row]
    assert logged == pytest.approx([float(torch.tensor(scores).mean())], abs=1e-5)
