"""What SFT imitates, and pairs made of rewrites, through the command line."""

import pytest

from rlhf.cli import main
from rlhf.feedback.exports import export_file
from rlhf.feedback.store import Store
from tests.data.test_unpaired import rewritten, verdicts
from tests.training.conftest import metrics_of, read_json, write_rows


def trained_on(folder) -> dict:
    return read_json(folder / "manifest.json")["provenance"]["data"]


def test_sft_takes_the_chosen_unless_told_otherwise(run_stage, tmp_path):
    store = f"feedback:{rewritten(tmp_path / 'f.db')}#c"
    assert metrics_of(run_stage("sft", store, out="chosen"))["num_train"] == 1
    folder = run_stage("sft", store, "--imitate", "rewrites", out="rewrites")
    assert metrics_of(folder)["num_train"] == 2
    assert read_json(folder / "manifest.json")["simulated"] is True
    assert trained_on(folder)["imitated"] == "rewrites"
    everything = run_stage("sft", store, "--imitate", "all", out="all")
    assert metrics_of(everything)["num_train"] == 3


def test_rewrites_of_a_judgement_file_and_of_what_has_none(run_stage, tmp_path, demos, capsys):
    with Store.open(rewritten(tmp_path / "f.db")) as store:
        export_file(store, "c", tmp_path / "j.jsonl", format_name="judgements")
    options = ("--imitate", "rewrites")
    assert metrics_of(run_stage("sft", tmp_path / "j.jsonl", *options))["num_train"] == 2
    run_stage("sft", demos, *options, expect=2)
    assert "holds no judgements, so no rewrites" in capsys.readouterr().err.splitlines()[-1]
    run_stage("sft", f"feedback:{verdicts(tmp_path / 'g.db')}#c", *options, expect=3)
    assert "no rewrites among 3 judgements" in capsys.readouterr().err.splitlines()[-1]
    run_stage("sft", demos, "--imitate", "all", out="all")  # whatever there is


def test_dpo_learns_from_rewrites_where_asked(run_stage, tmp_path, capsys):
    store = f"feedback:{rewritten(tmp_path / 'f.db')}#c"
    folder = run_stage("dpo", store, "--use_peft", "--rewrite_pairs")
    assert metrics_of(folder)["num_train"] == 2
    assert trained_on(folder)["num_rewrite_pairs"] == 1
    assert "1 noted: pairs of a rewrite and what it rewrites" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["dpo", "reward"])
def test_pairs_of_rewrites_need_judgements(verb, run_stage, pairs, capsys):
    run_stage(verb, pairs, "--rewrite_pairs", expect=2)
    assert "--rewrite_pairs: " in capsys.readouterr().err.splitlines()[-1]


def test_sft_says_what_is_odd_about_pairs(run_stage, tmp_path, capsys):
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "a"},
        {"prompt": "q", "chosen": "b", "rejected": "c"},
        {
            "prompt": "r",
            "chosen": [{"role": "assistant", "content": "d"}],
            "rejected": [
                {"role": "assistant", "content": "x"},
                {"role": "user", "content": "y"},
                {"role": "assistant", "content": "z"},
            ],
        },
    ]
    run_stage("sft", write_rows(tmp_path / "rows.jsonl", rows))
    said = capsys.readouterr().err
    assert "1 noted: pairs of identical completions, imitated all the same" in said
    assert "1 noted: pairs whose prompts differ: the chosen one's is taken" in said


@pytest.mark.parametrize("value", ["rejected", "rewrite"])
def test_an_unknown_thing_to_imitate_is_refused(value, tmp_path, capsys):
    assert main(["sft", "--imitate", value, "--dataset_name", "d"]) == 2
    assert "imitate" in capsys.readouterr().err
