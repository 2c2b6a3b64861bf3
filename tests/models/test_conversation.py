"""Conversations: what is sampled, what fits, and what stays when a reader leaves."""

import math
import threading

import pytest
import torch

from rlhf.errors import ConfigError, DataError
from rlhf.models.conversation import Conversation, Speech, open_conversation, side_by_side
from rlhf.models.generation import generate
from rlhf.models.loading import load_policy, load_tokenizer
from rlhf.models.streaming import GumbelNoise, stream_ids

ASKED = [{"role": "user", "content": "How do I keep bread fresh?"}]
WORDS = ASKED[0]["content"]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load_policy(tiny_model), load_tokenizer(tiny_model)


@pytest.fixture
def talk(loaded):
    """`talk(**settings)`: a conversation with the tiny model."""
    from rlhf.data.tokenization import Renderer

    def make(*, system=None, **settings) -> Conversation:
        model, tokenizer = loaded
        speech = Speech(**{"max_new_tokens": 12, **settings})
        return Conversation("tiny", model, Renderer(tokenizer), speech, system)

    return make


def test_greedy_answer_is_what_batched_sampling_gives(talk, loaded):
    expected = generate(*loaded, [ASKED], temperature=0, max_new_tokens=12)[0][0]
    conversation = talk(temperature=0)
    assert "".join(conversation.ask(WORDS)) == expected.text
    reply = conversation.reply
    assert (reply.text, reply.ended) == (expected.text, expected.ended)
    assert reply.num_tokens == len(expected.token_ids)


def test_history_is_what_the_model_reads(talk, loaded):
    conversation = talk(temperature=0, system="Be brief.")
    first = conversation.answer(WORDS).text
    conversation.answer("And cake?")
    turns = [
        *({"role": "system", "content": "Be brief."}, ASKED[0]),
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And cake?"},
    ]
    expected = generate(*loaded, [turns], temperature=0, max_new_tokens=12)[0][0]
    assert conversation.reply.text == expected.text
    assert conversation.turns == [*turns[1:], {"role": "assistant", "content": expected.text}]


def test_equal_seeds_give_equal_conversations_and_a_reset_begins_again(talk):
    first, second, other = talk(seed=3), talk(seed=3), talk(seed=4)
    said = [first.answer(WORDS).text for _ in range(3)]
    assert len(set(said)) == 3  # of an equal question each answer is drawn anew
    torch.manual_seed(99)  # nobody else's draws are in it
    assert [second.answer(WORDS).text for _ in range(3)] == said
    assert other.answer(WORDS).text != said[0]
    first.reset()
    assert first.turns == []
    assert first.answer(WORDS).text == said[0]


def test_noise_makes_draws_of_the_policys_distribution():
    """Logits 0 and ln 3 at temperature 1 are one to three; at temperature 0.5 one to nine."""
    logits = torch.tensor([[0.0, math.log(3)]]).repeat(20_000, 1)
    for temperature, share in ((1.0, 3 / 4), (0.5, 9 / 10)):
        noisy = GumbelNoise(temperature, seed=0)(torch.empty(0), logits)
        found = float((noisy.argmax(1) == 1).double().mean())
        assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / 20_000)


def test_oldest_turns_are_dropped_when_the_context_is_full(talk):
    conversation = talk(temperature=0, max_new_tokens=100, system="Be brief.")
    dropped = [conversation.answer(f"{number} " + "bread " * 12).num_dropped for number in range(6)]
    assert dropped[0] == 0
    assert sum(dropped) > 0
    assert all(number % 2 == 0 for number in dropped)
    assert conversation.turns[0]["role"] == "user"
    assert len(conversation.turns) == 12 - sum(dropped)
    ids = conversation.prompt_ids(conversation.turns[:-1])
    assert len(ids) + 100 <= 512
    assert "Be brief." in conversation.renderer.tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("message", "words"), [("x" * 600, "the message alone has"), (" \n ", "an empty message")]
)
def test_message_that_cannot_be_asked_leaves_the_history(talk, message, words):
    conversation = talk()
    conversation.answer(WORDS)
    before = list(conversation.turns)
    with pytest.raises(DataError, match=words):
        conversation.answer(message)
    assert conversation.turns == before


def test_reader_who_leaves_stops_the_sampling_and_keeps_what_was_said(talk):
    conversation = talk(max_new_tokens=400)
    num_threads = threading.active_count()
    pieces = conversation.ask(WORDS)
    said = next(pieces) + next(pieces)
    assert threading.active_count() == num_threads + 1
    pieces.close()
    assert threading.active_count() == num_threads
    assert conversation.turns == [ASKED[0], {"role": "assistant", "content": said}]
    assert conversation.reply.ended is None
    assert conversation.reply.num_tokens < 400


def test_what_fails_while_sampling_is_raised_to_the_reader(talk, monkeypatch):
    conversation = talk()
    model = conversation.model

    def fail(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(model, "forward", fail)
    with pytest.raises(MemoryError, match="no room"):
        conversation.answer(WORDS)
    assert conversation.turns == []


def test_settings_of_the_models_own_config_do_not_reach_in(loaded, talk):
    model, _ = loaded
    expected = talk(temperature=0).answer(WORDS).text
    config = model.generation_config
    before = config.to_dict()
    config.repetition_penalty = 50.0
    try:
        assert talk(temperature=0).answer(WORDS).text == expected
        assert config.repetition_penalty == 50.0
    finally:
        config.repetition_penalty = before["repetition_penalty"]


def test_characters_of_several_tokens_come_whole(talk, monkeypatch):
    tokenizer = talk().renderer.tokenizer
    ids = tokenizer("a \N{SNOWMAN} b\N{GRINNING FACE}", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr("rlhf.models.conversation.stream_ids", lambda *_, **__: iter([*ids, 2]))
    conversation = talk()
    pieces = list(conversation.ask(WORDS))
    assert "".join(pieces) == "a \N{SNOWMAN} b\N{GRINNING FACE}"
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert "\N{SNOWMAN}" in "".join(one for one in pieces if len(one.encode()) >= 3)
    assert conversation.reply.ended is True


def test_two_answer_in_turns(talk):
    pair = [talk(seed=1), talk(seed=2)]
    found = list(side_by_side(pair, WORDS))
    assert {index for index, _ in found[:2]} == {0, 1}
    for index, each in enumerate(pair):
        assert "".join(piece for which, piece in found if which == index) == each.reply.text


def test_stream_has_the_end_token_and_no_more(loaded):
    model, tokenizer = loaded
    prompt = tokenizer("Wrap it")["input_ids"]
    options = {"pad_id": 0, "max_new_tokens": 9, "temperature": 0.0, "seed": 0}
    ids = list(stream_ids(model, prompt, end_ids=[2], **options))
    third = ids[2]
    assert (
        list(stream_ids(model, prompt, end_ids=[third], **options)) == ids[: ids.index(third) + 1]
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_new_tokens": 0}, "--max_new_tokens 0"),
        ({"temperature": -1.0}, "--temperature -1.0"),
        ({"temperature": math.nan}, "--temperature nan"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_impossible_settings(settings, words):
    with pytest.raises(ConfigError, match=words):
        Speech(**settings)


def refuse_to_load(*_, **__):
    raise AssertionError("weights were loaded")


def test_what_cannot_talk_is_said_before_weights_are_loaded(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("rlhf.models.conversation.load_policy", refuse_to_load)
    with pytest.raises(ConfigError, match="did you mean 'smollm2-135m-instruct'"):
        open_conversation("smollm2-135m-instruc")
    bare = load_tokenizer(tiny_model)
    bare.chat_template = None
    bare.save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "config.json").write_text((tiny_model / "config.json").read_text())
    with pytest.raises(ConfigError, match="no chat template"):
        open_conversation(str(tmp_path / "bare"))
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    with pytest.raises(DataError, match="refused by the chat template"):
        open_conversation(str(tiny_model), system="Be brief.", chat_template=strict)


def test_model_without_template_talks_in_plain_or_with_a_given_one(tiny_model, tmp_path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    speech = Speech(max_new_tokens=4, temperature=0)
    plain = open_conversation(str(bare), rendering="plain", speech=speech)
    decoded = plain.renderer.tokenizer.decode(plain.prompt_ids(ASKED))
    assert decoded == f"\n\nHuman: {WORDS}\n\nAssistant: "
    template = load_tokenizer(tiny_model).chat_template
    given = open_conversation(str(bare), chat_template=template, speech=speech)
    own = open_conversation(str(tiny_model), speech=speech)
    assert given.answer(WORDS) == own.answer(WORDS)


def test_stages_rendering_is_taken_over(tiny_model, tmp_path):
    import shutil

    from rlhf.manifest import Manifest

    shutil.copytree(tiny_model, tmp_path / "stage")
    made = Manifest(stage="dpo", config={"rendering": "plain"}, simulated=True)
    made.write(tmp_path / "stage")
    conversation = open_conversation(str(tmp_path / "stage"))
    assert conversation.renderer.rendering == "plain"
    assert conversation.simulated
