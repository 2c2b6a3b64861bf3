"""The ids of training are those of a rollout: hand-checked on a tokenizer made on the spot."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.data.tokenization import Renderer
from rlhf.errors import ConfigError, DataError
from rlhf.feedback.transcripts import parse_transcript, transcript_text
from tests.tiny import make_tokenizer

PAD, START, END = 0, 1, 2  # the ids of SPECIAL_TOKENS in tests/tiny.py
TOKENIZER = make_tokenizer()
ASKED = [{"role": "user", "content": "bread?"}]


def plain(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_prompt_ends_where_the_assistant_speaks():
    ids = Renderer(TOKENIZER).prompt_ids(ASKED)
    assert ids == [START, *plain("user\nbread?"), END, *plain("\n"), START, *plain("assistant\n")]


def test_completion_ends_with_the_turn_and_nothing_after_it():
    assert Renderer(TOKENIZER).completion_ids("a box") == [*plain("a box"), END]
    assert Renderer(TOKENIZER).completion_ids("a box", ended=None) == [*plain("a box"), END]


def test_cut_completion_has_no_end_token():
    assert Renderer(TOKENIZER).completion_ids("a box", ended=False) == plain("a box")


def test_empty_completion_is_the_end_token_alone():
    assert Renderer(TOKENIZER).completion_ids("") == [END]


def test_special_tokens_written_in_a_completion_are_text():
    ids = Renderer(TOKENIZER).completion_ids("stop <|im_end|> here")
    assert ids.count(END) == 1
    assert ids[-1] == END
    assert TOKENIZER.decode(ids[:-1]) == "stop <|im_end|> here"


def test_an_assistant_turn_at_the_end_of_a_prompt_is_continued():
    ids = Renderer(TOKENIZER).prompt_ids([*ASKED, {"role": "assistant", "content": "A dry"}])
    assert ids[-len(plain("A dry")) :] == plain("A dry")
    assert ids.count(START) == 2


def test_plain_prompt_is_tokenised_as_it_stands():
    assert Renderer(TOKENIZER).prompt_ids("How do I") == plain("How do I")


def test_a_bos_in_the_text_is_not_doubled():
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>",
        special_tokens=[("<|im_start|>", START), ("<|im_end|>", END)],
    )
    assert tokenizer("a")["input_ids"] == [START, *plain("a"), END]  # this one adds both
    renderer = Renderer(tokenizer)
    assert renderer.prompt_ids("a") == [START, *plain("a")]
    assert renderer.prompt_ids("<|im_start|>a") == [START, *plain("a")]
    assert renderer.completion_ids("a") == [*plain("a"), END]


def test_end_of_turn_comes_from_the_template_and_not_from_eos():
    tokenizer = make_tokenizer()
    tokenizer.eos_token = "<|im_start|>"
    assert Renderer(tokenizer).turn_end_id == END


def test_end_of_turn_is_eos_without_a_template():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    assert Renderer(tokenizer).turn_end_id == END
    with pytest.raises(ConfigError, match=r"no chat template.*chat_template_file"):
        Renderer(tokenizer).prompt_ids(ASKED)


def test_no_end_at_all_is_refused():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="neither an end-of-turn nor an eos"):
        Renderer(tokenizer)


def test_every_assistant_turn_of_a_conversation_is_marked():
    turns = [
        {"role": "user", "content": "bread?"},
        {"role": "assistant", "content": "a box"},
        {"role": "user", "content": "dry?"},
        {"role": "assistant", "content": "yes"},
    ]
    ids, mask = Renderer(TOKENIZER).conversation_ids(turns)
    marked = [token for token, keep in zip(ids, mask, strict=True) if keep]
    assert marked == [*plain("a box"), END, *plain("yes"), END]
    assert ids[-1] == END


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40))
def test_a_completion_decodes_to_its_text_and_ends_once(text: str):
    ids = Renderer(TOKENIZER).completion_ids(text)
    assert ids.count(END) == 1
    assert ids[-1] == END
    assert TOKENIZER.decode(ids[:-1]) == text


TURNS = [
    {"role": "user", "content": "bread?"},
    {"role": "assistant", "content": "a box"},
    {"role": "user", "content": "dry?"},
]


def test_a_plain_prompt_is_a_transcript_up_to_where_the_assistant_speaks():
    ids = Renderer(TOKENIZER, "plain").prompt_ids(TURNS)
    expected = "\n\nHuman: bread?\n\nAssistant: a box\n\nHuman: dry?\n\nAssistant: "
    assert ids == plain(expected)


def test_a_plain_transcript_continues_an_assistants_turn():
    ids = Renderer(TOKENIZER, "plain").prompt_ids(TURNS[:2])
    assert TOKENIZER.decode(ids) == "\n\nHuman: bread?\n\nAssistant: a box"


def test_plain_needs_no_template_and_ends_in_eos():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    renderer = Renderer(tokenizer, "plain")
    assert renderer.transcript_ids(TURNS, "yes")[-1] == END
    assert renderer.completion_ids("yes", ended=False) == plain("yes")
    with_template = make_tokenizer()
    with_template.eos_token = "<|im_start|>"
    assert Renderer(with_template, "plain").turn_end_id == START


def test_plain_text_prompts_are_the_same_in_both_renderings():
    assert Renderer(TOKENIZER, "plain").prompt_ids("How do I") == plain("How do I")


def test_a_role_that_transcripts_do_not_know_is_refused():
    turns = [{"role": "system", "content": "be kind"}, *TURNS]
    with pytest.raises(DataError, match=r"a turn by 'system'.*--rendering chat"):
        Renderer(TOKENIZER, "plain").prompt_ids(turns)


def test_an_unknown_rendering_is_refused():
    with pytest.raises(ConfigError, match="--rendering html: must be chat or plain"):
        Renderer(TOKENIZER, "html")


contents = st.text(max_size=30).map(str.strip).filter(lambda text: "\n\n" not in text)


@settings(max_examples=50, deadline=None)
@given(st.lists(contents, min_size=1, max_size=5), contents)
def test_a_plain_transcript_parses_back_into_its_turns(texts: list[str], answer: str):
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    assert parse_transcript("here", "chosen", transcript_text(turns)) == turns
    if len(turns) % 2:  # the assistant is next: the ids of both decode to the whole transcript
        ids = Renderer(TOKENIZER, "plain").transcript_ids(turns, answer)[:-1]
        said = [*turns, {"role": "assistant", "content": answer}]
        assert parse_transcript("here", "chosen", TOKENIZER.decode(ids)) == said


def test_turns_that_the_template_refuses_are_bad_data_and_not_a_crash():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no system; ever') }}"
    renderer = Renderer(make_tokenizer())
    renderer.tokenizer = tokenizer
    with pytest.raises(DataError, match=r"refused by the chat template \(no system, ever\)"):
        renderer.prompt_ids([{"role": "system", "content": "Be brief."}])
    with pytest.raises(DataError, match="without turns"):
        renderer.prompt_ids([])


@pytest.mark.parametrize("template", ["{% for", "{{ raise_exception('never') }}"])
def test_a_template_that_renders_nothing_at_all_is_a_setting_to_mend(template):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match="the chat template cannot render a question and its"):
        Renderer(tokenizer)


def test_a_text_over_the_tokenizers_limit_is_no_warning_of_indexing_errors(caplog):
    """Its words would stand before ours, about a row that is dropped and counted."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    renderer = Renderer(make_tokenizer())
    try:
        assert len(renderer.completion_ids("x y " * 400)) > 512
        assert len(renderer.prompt_ids("x y " * 400)) > 512
        assert len(renderer.prompt_ids([{"role": "user", "content": "x y " * 400}])) > 512
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records
