"""`rlhf score`: the rows of a data set with their scores, and an accuracy with its interval."""

import json
import math
import os
import shutil

import numpy as np
import pytest
import torch

from rlhf.cli import main
from rlhf.evaluation.scored_data import accuracy_of
from rlhf.models.loading import load_tokenizer
from rlhf.models.scoring import RewardModel
from tests.models.reward_models import save_reward

# PEFT 0.21 still reads the old name; nothing of ours does.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

PAIRS = [
    {"prompt": "Hi", "chosen": "Wrap it.", "rejected": "No.", "id": 7},
    {"prompt": "Hi", "chosen": "A dry box.", "rejected": "What?", "chosen_ended": False},
    {"prompt": "What to cook?", "chosen": "Pasta.", "rejected": "Stones.", "p_chosen": 0.5},
    {"prompt": "And then?", "chosen": "Rest.", "rejected": "Run!", "p_chosen": 0.8},
]


@pytest.fixture(scope="module")
def reward(tiny_model, tmp_path_factory):
    return save_reward(tiny_model, tmp_path_factory.mktemp("score") / "reward")


@pytest.fixture(scope="module")
def ensemble(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble") / "reward"
    return save_reward(tiny_model, folder, num_members=2, heads={"helpful": 1.0, "short": -1.0})


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(reward, data, tmp_path, *more):
    """(exit code, rows, summary)."""
    output, summary = tmp_path / "out" / "scored.jsonl", tmp_path / "out" / "score.json"
    words = ["score", "--model_name_or_path", str(reward), "--dataset_name", str(data)]
    code = main([*words, "--output", str(output), "--json", str(summary), *more])
    if code:
        return code, None, None
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    return 0, rows, json.loads(summary.read_text())


def test_pairs_get_the_models_scores_beside_what_they_had(reward, tmp_path, capsys):
    code, rows, summary = score(reward, write(tmp_path / "pairs.jsonl", PAIRS), tmp_path)
    assert code == 0
    model = RewardModel.load(reward)
    for row, pair in zip(rows, PAIRS, strict=True):
        assert {key: row[key] for key in pair} == pair
        ended = [pair.get("chosen_ended"), None]
        expected = model.score([pair["prompt"]] * 2, [pair["chosen"], pair["rejected"]], ended)
        found = [row["chosen_score"], row["rejected_score"]]
        assert found == pytest.approx(expected.tolist(), abs=1e-5)
        assert "chosen_spread" not in row
    kept = [row for row in rows if row.get("p_chosen") != 0.5]
    right = sum(row["chosen_score"] > row["rejected_score"] for row in kept)
    assert summary["accuracy"] == pytest.approx(right / 3)
    assert (summary["n"], summary["num_prompts"], summary["num_ties"]) == (3, 2, 1)
    low, high = summary["accuracy_ci"]
    assert low <= summary["accuracy"] <= high
    assert summary["longer_accuracy"]["n"] == 3
    assert "3 pairs of 2 prompts" in capsys.readouterr().out


def test_prompts_that_differ_are_scored_as_two_transcripts(reward, tmp_path):
    chosen = "\n\nHuman: Hi\n\nAssistant: Wrap it."
    rejected = "\n\nHuman: Bye\n\nAssistant: No."
    data = write(tmp_path / "hh.jsonl", [{"chosen": chosen, "rejected": rejected}] * 2)
    _, rows, summary = score(reward, data, tmp_path)
    asked = [[{"role": "user", "content": text}] for text in ("Hi", "Bye")]
    expected = RewardModel.load(reward).score(asked, ["Wrap it.", "No."]).tolist()
    found = [rows[0]["chosen_score"], rows[0]["rejected_score"]]
    assert found == pytest.approx(expected, abs=1e-5)
    assert summary["num_differing_prompts"] == 2


def test_an_ensemble_shows_its_members_heads_and_spread(ensemble, tmp_path):
    _, rows, summary = score(ensemble, write(tmp_path / "pairs.jsonl", PAIRS), tmp_path)
    first, second = rows[0]["chosen_member_scores"]
    assert rows[0]["chosen_score"] == pytest.approx((first + second) / 2, abs=1e-6)
    assert rows[0]["chosen_spread"] == pytest.approx(abs(first - second) / 2, abs=1e-6)
    heads = rows[0]["rejected_head_scores"]
    assert rows[0]["rejected_score"] == pytest.approx(heads["helpful"] - heads["short"], abs=1e-5)
    assert summary["num_members"] == 2
    assert summary["mean_spread"] > 0


def test_only_the_context_cuts_and_that_is_said(reward, tmp_path, capsys):
    long = "a box " * 600  # the tiny model reads 512 tokens
    rows = [{"prompt": "Hi", "chosen": long, "rejected": "No."}, PAIRS[3]]
    _, _, summary = score(reward, write(tmp_path / "long.jsonl", rows), tmp_path)
    assert summary["num_cut"] == 1
    assert "1 transcripts lost their beginning" in capsys.readouterr().out


def test_samples_and_single_completions_are_scored_too(reward, tmp_path):
    model = RewardModel.load(reward)
    samples = [{"prompt": "Hi", "completions": ["Wrap it.", "No."], "ended": [True, False]}] * 2
    _, rows, summary = score(reward, write(tmp_path / "samples.jsonl", samples), tmp_path)
    expected = model.score(["Hi", "Hi"], ["Wrap it.", "No."], [True, False]).tolist()
    assert rows[0]["scores"] == pytest.approx(expected, abs=1e-5)
    assert summary["n"] == 4
    assert summary["mean_score"]["value"] == pytest.approx(sum(expected) / 2, abs=1e-5)
    asked = [{"role": "user", "content": "Hi"}]
    said = [{"role": "assistant", "content": "Wrap it."}]
    single = [{"prompt": asked, "completion": said}] * 2
    _, rows, _ = score(reward, write(tmp_path / "single.jsonl", single), tmp_path)
    expected = model.score([asked], ["Wrap it."]).tolist()
    assert [row["score"] for row in rows] == pytest.approx(expected * 2, abs=1e-5)


def test_accuracy_follows_the_favoured_side_and_counts_equal_scores_half():
    """Right, wrong, equal, and right since p_chosen 0.2 favours rejected: 2.5 of 4."""
    gaps = np.array([1.0, -1.0, 0.0, -3.0])
    found = accuracy_of(gaps, [None, 1.0, 0.9, 0.2], ["a", "b", "c", "d"])
    assert (found.value, found.n) == (0.625, 4)
    assert accuracy_of(np.array([]), [], []) is None


def test_pairs_that_are_all_ties_have_no_accuracy(reward, tmp_path, capsys):
    data = write(tmp_path / "ties.jsonl", [PAIRS[2]])
    code, _, summary = score(reward, data, tmp_path)
    assert (code, summary["accuracy"], summary["accuracy_ci"], summary["n"]) == (0, None, None, 0)
    assert "every pair is a tie" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "more", "code", "message"),
    [
        (PAIRS, ["--batchsize", "2"], 2, "did you mean 'batch_size'"),
        (PAIRS, ["--batch_size", "0"], 2, "must be 1 or more"),
        (PAIRS, ["--dtype", "fp8"], 2, "unknown dtype 'fp8'"),
        (PAIRS, ["--model_name_or_path", "gone/reward/x"], 2, "unknown model 'gone/reward/x'"),
        (PAIRS, ["--dataset_name", "gone.jsonl"], 2, "gone.jsonl: no such file"),
        (PAIRS, ["--json", "FOLDER"], 2, "a folder; give the file to write"),
        (PAIRS, ["--output", "DATA"], 2, "never overwritten"),
        (PAIRS, ["--model_name_or_path", "BASE"], 3, "without a reward head"),
        ([{"prompt": "Hi", "chosen": "a"}], [], 3, "no column 'rejected'"),
        ([{"prompt": "Hi", "completions": "a"}], [], 3, "completions must be a list of texts"),
        ([{"prompt": "Hi", "completions": ["a"], "ended": [1.5]}], [], 3, "ended must be"),
        ([{"prompt": "Hi", "chosen": "a", "rejected": "a"}], [], 3, "no usable row"),
    ],
)
def test_bad_input_is_one_line_and_a_code(
    reward, tiny_model, tmp_path, capsys, rows, more, code, message
):
    data = write(tmp_path / "data.jsonl", rows)
    named = {"FOLDER": str(tmp_path), "DATA": str(data), "BASE": str(tiny_model)}
    more = [named.get(word, word) for word in more]
    assert score(reward, data, tmp_path, *more)[0] == code
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert said[-1].startswith("rlhf score: ")


def test_a_broken_models_score_is_named(reward, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        RewardModel,
        "_score_batch",
        lambda self, rows, more: torch.full((1, len(rows), 1), math.nan),
    )
    data = write(tmp_path / "pairs.jsonl", PAIRS)
    assert score(reward, data, tmp_path)[0] == 3
    assert "pairs.jsonl:1: its score is nan" in capsys.readouterr().err


HALF = "\\ud800"  # JSON's escape of half a character


def test_half_characters_beside_the_texts_are_kept_and_written_whole(reward, tmp_path):
    data = tmp_path / "half.jsonl"
    data.write_text(f'{{"prompt": "Hi", "chosen": "a", "rejected": "b", "note": "{HALF}"}}\n')
    _, rows, _ = score(reward, data, tmp_path)
    assert rows[0]["note"] == "\ud800"
    assert sorted(os.listdir(tmp_path / "out")) == ["score.json", "scored.jsonl"]


def test_a_row_nested_too_deep_to_be_stored_is_one_line(reward, tmp_path, capsys):
    data = tmp_path / "deep.jsonl"
    deep = "[" * 900 + "]" * 900
    data.write_text(f'{{"prompt": "Hi", "chosen": "a", "rejected": "b", "note": {deep}}}\n')
    assert score(reward, data, tmp_path)[0] == 3
    assert "row 1: nested too deep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f'"completions": ["{HALF}"]', "half.jsonl:1: completion holds half a character"),
        (f'"completion": "{HALF}"', "half.jsonl:1: completion holds half a character"),
        (
            f'"completion": [{{"role": "user", "content": "{HALF}"}}, '
            '{"role": "assistant", "content": "x"}]',
            "half.jsonl:1: completion holds half a character",
        ),
        ('"completion": [{"role": "user", "content": "x"}]', "half.jsonl:1: completion 0: must be"),
        ('"completions": ["a", "b"], "ended": [0, 1]', "half.jsonl:1: ended must be true or false"),
    ],
)
def test_a_completion_that_cannot_be_scored_is_named(row, message, reward, tmp_path, capsys):
    data = tmp_path / "half.jsonl"
    data.write_text(f'{{"prompt": "Hi", {row}}}\n')
    assert score(reward, data, tmp_path)[0] == 3
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_pairs_that_the_template_refuses_are_dropped_and_counted(tiny_model, tmp_path, capsys):
    base = shutil.copytree(tiny_model, tmp_path / "base")
    tokenizer = load_tokenizer(base)
    refusal = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    tokenizer.chat_template = refusal + tokenizer.chat_template
    tokenizer.save_pretrained(base)
    reward = save_reward(base, tmp_path / "reward")
    asked = {"role": "user", "content": "Hi"}
    prompts = [[asked], [{"role": "system", "content": "Be brief."}, asked]]
    data = [{"prompt": prompt, "chosen": "a", "rejected": "b"} for prompt in prompts]
    _, rows, summary = score(reward, write(tmp_path / "d.jsonl", data), tmp_path)
    assert [row["prompt"] for row in rows] == prompts[:1]
    assert summary["losses"]["dropped"] == {"refused by the chat template (no system)": 1}
    alone = [{"prompt": prompt, "completion": "a"} for prompt in prompts]
    assert score(reward, write(tmp_path / "c.jsonl", alone), tmp_path)[0] == 3
    assert "c.jsonl:2: refused by the chat template" in capsys.readouterr().err


def test_a_tie_by_rounding_is_a_tie_here_as_in_the_stage(reward, tmp_path):
    data = [PAIRS[3] | {"p_chosen": p} for p in (0.5 - 1e-16, 0.5 + 1e-12, 0.8)]
    _, _, summary = score(reward, write(tmp_path / "ties.jsonl", data), tmp_path)
    assert (summary["n"], summary["num_ties"]) == (1, 2)


def test_the_model_is_never_written_over(reward, tmp_path, capsys):
    spec = reward / "reward.json"
    before = spec.read_bytes()
    data = write(tmp_path / "pairs.jsonl", PAIRS)
    assert score(reward, data, tmp_path, "--json", str(spec))[0] == 2
    assert "never overwritten" in capsys.readouterr().err
    assert spec.read_bytes() == before


def test_a_store_is_never_written_over(reward, tmp_path, capsys):
    store = tmp_path / "feedback.db"
    store.write_bytes(b"ratings of months")
    assert score(reward, f"feedback:{store}#c", tmp_path, "--output", str(store))[0] == 2
    assert "never overwritten" in capsys.readouterr().err
    assert store.read_bytes() == b"ratings of months"
