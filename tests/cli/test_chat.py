"""`rlhf chat`: one answer for a script, or a talk with commands; nothing moves the cursor."""

import io

import pytest

from rlhf.cli import chat, main
from rlhf.models.generation import generate
from rlhf.models.loading import load_policy, load_tokenizer

WORDS = "How do I keep bread fresh?"


@pytest.fixture
def words(tiny_model):
    return ["chat", "--model_name_or_path", str(tiny_model), "--max_new_tokens", "8"]


def test_message_prints_the_answer_alone(words, tiny_model, capsys):
    assert main([*words, "--message", WORDS, "--temperature", "0"]) == 0
    model, tokenizer = load_policy(tiny_model), load_tokenizer(tiny_model)
    prompt = [{"role": "user", "content": WORDS}]
    expected = generate(model, tokenizer, [prompt], temperature=0, max_new_tokens=8)[0][0]
    said = capsys.readouterr()
    assert said.out == chat.shown(expected.text) + "\n"
    assert "cut at --max_new_tokens 8" in said.err


def test_equal_seeds_print_the_same(words, capsys):
    outs = []
    for seed in ("1", "1", "2"):
        assert main([*words, "--message", WORDS, "--seed", seed]) == 0
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1] != outs[2]


def test_two_models_answer_under_their_names(words, tiny_model, capsys):
    words = [*words[:3], str(tiny_model), *words[3:], "--temperature", "0", "--message", WORDS]
    assert main(words) == 0
    parts = capsys.readouterr().out.split(f"== {tiny_model} ==\n")
    assert len(parts) == 3
    assert parts[1] == parts[2] != ""


def talk(words, lines, monkeypatch) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return main([*words, "--temperature", "0"])


def test_talk_has_history_commands_and_an_end(words, monkeypatch, capsys):
    lines = [WORDS, "And cake?", "/reset", WORDS, "/resett", "", "/quit", "not asked"]
    assert talk(words, lines, monkeypatch) == 0
    said = capsys.readouterr()
    answers = said.out.splitlines()
    assert answers[0] == answers[-1]  # after the reset as at the beginning
    assert "no such command: /resett; did you mean '/reset'?" in said.err
    assert "an empty message" in said.err
    assert said.err.count("cut at") <= 3


def test_full_context_is_said_and_too_much_ends_nothing(words, monkeypatch, capsys):
    words = [*words[:-1], "120"]
    assert talk(words, ["bread " * 30] * 4 + ["x" * 900, "/help"], monkeypatch) == 0
    said = capsys.readouterr().err
    assert "the context is full: the oldest 2 turns were dropped" in said
    assert "the message alone has" in said
    assert "/help  these lines" in said


def test_message_that_begins_with_a_slash(words, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(chat, "say", lambda _, message: asked.append(message))
    assert talk(words, ["//etc is what?", "/help"], monkeypatch) == 0
    assert asked == ["/etc is what?"]


def test_interrupted_answer_ends_alone(words, monkeypatch, capsys):
    asked = []

    def say(_, message):
        asked.append(message)
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "say", say)
    assert talk(words, ["one", "two"], monkeypatch) == 0
    assert asked == ["one", "two"]
    assert "stopped" in capsys.readouterr().err


def test_nothing_moves_the_cursor():
    assert chat.shown("a\x1b[2Jb\r\nc\td\x07") == "a\ufffd[2Jb\ufffd\nc\td\ufffd"
    assert (
        chat.shown("\u0645\u06cc\u200c\u0631\u0648\u0645") == "\u0645\u06cc\u200c\u0631\u0648\u0645"
    )


def test_columns_hold_both_answers(words, tiny_model, monkeypatch, capsys):
    from rlhf.models.conversation import Speech, open_conversation

    pair = [
        open_conversation(str(tiny_model), speech=Speech(max_new_tokens=4, seed=seed))
        for seed in (1, 2)
    ]
    chat._in_columns(pair, WORDS)
    said = capsys.readouterr().out
    assert said.count("\u2503") >= 2 or said.count("|") >= 2
    for each in pair:
        assert each.reply.num_tokens == 4 or each.reply.ended


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--message", " "], 2, "--message: empty; write what to ask"),
        (["--message", "x" * 900], 3, "the message alone has"),
        (["--model_name_or_path", "someone/absent", "--message", "x"], 2, "HF_HUB_OFFLINE"),
        (["--model_name_or_path", "a", "b", "c"], 2, "at most 2 models"),
        (["--temperature", "-1", "--message", "x"], 2, "--temperature -1.0: must be 0"),
        (["--temprature", "1"], 2, "did you mean 'temperature'"),
        (["--chat_template_file", "absent.jinja"], 2, "absent.jinja: No such file"),
        (["--rendering", "html"], 2, "invalid choice: 'html'"),
    ],
)
def test_bad_input_is_one_line(words, change, code, message, capsys):
    assert main([*words, *change]) == code
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rlhf ")]
    assert len(said) == 1
    assert message in said[0]


def test_reward_model_cannot_talk(words, tiny_model, tmp_path, capsys):
    import json
    import shutil

    shutil.copytree(tiny_model, tmp_path / "reward")
    path = tmp_path / "reward" / "config.json"
    config = json.loads(path.read_text()) | {"architectures": ["LlamaForSequenceClassification"]}
    path.write_text(json.dumps(config))
    words[2] = str(tmp_path / "reward")
    assert main([*words, "--message", "x"]) == 3
    assert "a reward model; it scores completions and cannot write them" in capsys.readouterr().err


def test_bytes_that_are_no_text_end_no_conversation(words, monkeypatch, capsys):
    """Of a terminal in another encoding, or a file piped in."""
    typed = io.TextIOWrapper(
        io.BytesIO(b"\xff\xfe caf\xe9\nhello\n/nope\x1b[2J\n"), encoding="utf-8"
    )
    monkeypatch.setattr("sys.stdin", typed)
    assert main([*words, "--temperature", "0"]) == 0
    said = capsys.readouterr()
    assert said.err.count("cut at") + said.err.count("an empty answer") <= 2
    assert said.out.count("\n") >= 2
    assert "\x1b" not in said.out + said.err


@pytest.mark.parametrize("option", ["--message", "--system"])
def test_half_a_character_is_one_line(option, words, capsys):
    asked = [] if option == "--message" else ["--message", "hello"]
    assert main([*words, option, "caf\udce9", *asked]) == 3
    assert "no whole text" in capsys.readouterr().err.splitlines()[-1]
