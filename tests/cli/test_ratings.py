"""`rlhf ratings`: comparisons of samples, judged by simulated raters, people, or in a file."""

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.feedback.collection import make_comparisons
from rlhf.feedback.files import read_rows
from rlhf.feedback.imports import import_file
from rlhf.feedback.rules import UNDONE
from rlhf.feedback.store import Store
from rlhf.manifest import file_sha256
from rlhf.records import Annotator, Judgement
from tests.feedback.makers import answer, row, write_jsonl

GOOD = "Boil the eggs for 10 minutes, because the yolk is firm by then."
POOR = "Eggs are eggs."


def sample_row(number: int, *completions: str, **values: Any) -> dict[str, Any]:
    texts = completions or (f"{GOOD} {number}.", POOR, f"Boil them {number}")
    return {
        "prompt": [{"role": "user", "content": f"How long do I boil {number} eggs?"}],
        "completions": list(texts),
        "source": "tiny@1",
        "ended": [True] * len(texts),
        "seed": 7,
        **values,
    }


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "completions.jsonl", *(sample_row(i) for i in range(8)))


def run(folder: Path, *words: str, completions: Path | None = None) -> int:
    return main(
        [
            "ratings",
            *("--completions", str(completions or folder / "completions.jsonl")),
            *("--store", str(folder / "feedback.db"), "--output_dir", str(folder / "ratings")),
            *words,
        ]
    )


def manifest(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "ratings" / "manifest.json").read_text())
    return loaded


def test_simulated_raters_fill_the_campaign(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--overlap", "3", "--num_comparisons_per_prompt", "2") == 0
    assert "SIMULATED" in capsys.readouterr().out
    made = manifest(tmp_path)
    metrics = made["metrics"]
    assert made["simulated"] is True
    assert (metrics["num_items"], metrics["num_complete"]) == (16, 16)
    assert metrics["num_judgements"] == metrics["num_simulated"] == 48
    assert metrics["num_pairs"] + metrics["num_equal_votes"] == 16
    assert metrics["truth"]["labels"]["accuracy"] > 0.8
    assert 0 <= metrics["truth"]["length_share"] <= 1
    assert set(metrics["truth"]["raters"]) <= {
        each["name"] for each in made["provenance"]["truth"]["panel"]
    }
    assert made["inputs"]["completions"]["rows"] == 8
    with Store.open(tmp_path / "feedback.db") as store:
        said = store.judgements("quickstart")
        assert all(one.simulated for one in said)
        assert {one.shown_order for one in said} == {(0, 1), (1, 0)}
        assert store.problems() == []


def test_rerun_changes_nothing(tmp_path: Path, samples: Path) -> None:
    run(tmp_path)
    first = manifest(tmp_path)
    with Store.open(tmp_path / "feedback.db") as store:
        before = store.judgements()
    assert run(tmp_path) == 0
    again = manifest(tmp_path)
    assert (again["metrics"], again["provenance"]) == (first["metrics"], first["provenance"])
    with Store.open(tmp_path / "feedback.db") as store:
        assert store.judgements() == before


def test_interrupted_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        write_jsonl(folder / "completions.jsonl", *(sample_row(i) for i in range(150)))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "rlhf", "ratings", "--completions", "completions.jsonl"),
            *("--store", "feedback.db", "--output_dir", "ratings"),
        ],
        cwd=broken,
        stderr=subprocess.DEVNULL,
    )
    wait_for_judgements(broken / "feedback.db")
    process.kill()
    process.wait(timeout=30)
    assert not (broken / "ratings" / "manifest.json").exists()
    for folder in (whole, broken):
        assert run(folder) == 0
    assert manifest(broken)["metrics"] == manifest(whole)["metrics"]
    key = "judgement_ids_sha256"
    assert manifest(broken)["provenance"][key] == manifest(whole)["provenance"][key]


def wait_for_judgements(path: Path) -> None:
    deadline = time.monotonic() + 120  # the command itself takes seconds to start
    while time.monotonic() < deadline:
        if path.exists():
            with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
                if connection.execute("SELECT 1 FROM judgements LIMIT 1").fetchone():
                    return
        time.sleep(0.01)
    pytest.fail("the raters never began")


def test_people_are_waited_for_and_the_stage_goes_on_at_the_quorum(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--ratings", "human", "--overlap", "1", "--quorum", "3"]
    assert run(tmp_path, *words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("0 of 3 in; run again")
    assert f"scripts/annotate.sh --store {tmp_path / 'feedback.db'}" in printed
    assert not (tmp_path / "ratings" / "manifest.json").exists()
    with Store.open(tmp_path / "feedback.db") as store:
        store.add_annotator(Annotator(name="ann"))
        for verdict in (2, -1, 3):
            lease = store.next_assignment("quickstart", "ann")
            assert lease is not None
            answer(store, lease, campaign="quickstart", verdict=verdict)
    assert run(tmp_path, *words) == 0
    made = manifest(tmp_path)
    assert made["simulated"] is False
    assert made["metrics"]["num_judgements"] == 3
    assert "truth" not in made["metrics"]
    # a larger quorum is not reached: what the stage said before is withdrawn
    assert run(tmp_path, *words[:-1], "0.5") == 0
    assert "3 of 8 in; run again" in capsys.readouterr().out
    assert not (tmp_path / "ratings" / "manifest.json").exists()


def test_ratings_from_a_file_are_matched_by_their_texts(tmp_path: Path, samples: Path) -> None:
    prompt = sample_row(0)["prompt"]
    judged = [
        row(prompt=prompt, completions=[f"{GOOD} 0.", POOR], verdict=-3, campaign="elsewhere"),
        row(prompt=prompt, completions=["Boil them 0", POOR], annotator="bob", verdict=-1),
        row(prompt=prompt, completions=[POOR, f"{GOOD} 0."], annotator="bob", verdict=1),
    ]
    path = write_jsonl(tmp_path / "judged.jsonl", *judged)
    assert run(tmp_path, "--ratings", str(path), "--num_comparisons_per_prompt", "3") == 0
    made = manifest(tmp_path)
    assert made["metrics"]["num_judgements"] == 3
    assert made["metrics"]["num_items"] == 24
    assert made["metrics"]["num_pairs"] == 2
    assert made["inputs"]["ratings"]["path"] == str(path)


def test_file_of_other_comparisons_is_refused(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_jsonl(tmp_path / "judged.jsonl", row(prompt="what?"))
    assert run(tmp_path, "--ratings", str(path)) == 3
    assert "judged.jsonl:1: the campaign has no such comparison" in capsys.readouterr().err


def test_people_and_simulated_raters_are_not_mixed_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "completions.jsonl", *(sample_row(i, GOOD, POOR) for i in range(4)))
    run(tmp_path)
    assert run(tmp_path, "--ratings", "human", "--quorum", "1") == 3
    assert "12 of simulated raters' judgements" in capsys.readouterr().err
    judged = write_jsonl(
        tmp_path / "judged.jsonl",
        row(prompt=sample_row(0)["prompt"], completions=[GOOD, POOR]),
    )
    words = ["--ratings", str(judged)]
    with Store.open(tmp_path / "feedback.db") as store:
        before = store.judgements()
    code = run(tmp_path, *words)
    assert code == 3
    assert "--allow_mixed" in capsys.readouterr().err
    with Store.open(tmp_path / "feedback.db") as store:
        assert store.judgements() == before


def test_mixed_ratings_are_marked_when_allowed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "completions.jsonl", sample_row(0, GOOD, POOR))
    run(tmp_path)
    judged = write_jsonl(
        tmp_path / "judged.jsonl",
        row(prompt=sample_row(0)["prompt"], completions=[GOOD, POOR], verdict=-2),
    )
    assert run(tmp_path, "--ratings", str(judged), "--allow_mixed") == 0
    made = manifest(tmp_path)
    assert made["simulated"] is True
    assert (made["metrics"]["num_judgements"], made["metrics"]["num_simulated"]) == (4, 3)


def test_settings_come_from_yaml_and_the_command_line_wins(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "ratings.yaml"
    config.write_text("overlap: 2\nnum_comparisons_per_prompt: 1\nallow_mixed: false\n")
    assert run(tmp_path, "--config", str(config), "--overlap", "1") == 0
    metrics = manifest(tmp_path)["metrics"]
    assert (metrics["num_items"], metrics["num_judgements"]) == (8, 8)
    config.write_text("overlapp: 2\n")
    assert run(tmp_path, "--config", str(config)) == 2
    assert "unknown key 'overlapp'; did you mean 'overlap'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--overlap", "6"], 2, "there are 5 simulated raters"),
        (["--overlap", "0"], 2, "at least 1 rater"),
        (["--num_comparisons_per_prompt", "0"], 2, "at least 1"),
        (["--overlap", "three"], 2, "invalid int value"),
        (["--ratings", "simulatd"], 2, "simulatd: no such file"),
        (["--ratings", "human", "--quorum", "9999"], 2, "wants 48 judgements in all"),
        (["--quorum", "0"], 2, "a share of all"),
        (["--quorum", "1.5"], 2, "a share of all"),
        (["--qorum", "1"], 2, "unknown key 'qorum'; did you mean 'quorum'?"),
        (["--quorum", "x"], 2, "argument --quorum: 'x' is neither a number of judgements"),
        (["--quorum", "nan"], 2, "a share of all"),
        (["--lease_s", "nan"], 2, "--lease_s nan: give a number of seconds"),
        (["--lease_s", "-5"], 2, "--lease_s -5.0: give a number of seconds"),
        (["--lease_s", "inf"], 2, "give a number of seconds"),
        (["--seed", "9" * 30], 2, "too large"),
        (["--campaign", ""], 2, "an empty name"),
        (["--store", ":memory:"], 2, "in memory would be lost"),
    ],
)
def test_settings_that_cannot_be(
    tmp_path: Path,
    samples: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    assert run(tmp_path, *words) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "ratings" / "manifest.json").exists()
    if words[:2] != ["--ratings", "human"]:  # its quorum is known only with the comparisons
        assert not (tmp_path / "feedback.db").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "not valid JSON"),
        ({"completions": ["a", "b"]}, "no 'prompt'"),
        ({"prompt": "p"}, "no 'completions'"),
        ({"prompt": "p", "completions": ["a", 1]}, "a completion is not text"),
        (sample_row(1, ended=[True]), "ended has 1 values for 3"),
        (sample_row(1, ended="yes"), "ended holds a value that is no bool"),
        ({"prompt": 7, "completions": ["a", "b"]}, "completions.jsonl:2: "),
        ({"prompt": [{"role": "user"}], "completions": ["a", "b"]}, "completions.jsonl:2: "),
        ({"prompt": "p", "completions": ["a", "\ud800"]}, "half a character"),
    ],
)
def test_broken_samples_are_named_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: Any, message: str
) -> None:
    path = write_jsonl(tmp_path / "completions.jsonl", sample_row(0), line)
    assert run(tmp_path) == 3
    printed = capsys.readouterr().err
    assert f"{path}:2: " in printed
    assert message in printed
    assert printed.count("\n") == 1


def test_missing_and_useless_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 2
    assert "completions.jsonl: no such file" in capsys.readouterr().err
    write_jsonl(tmp_path / "completions.jsonl", sample_row(0, "same", "same"), sample_row(1, "one"))
    assert run(tmp_path) == 3
    assert "no prompt has two completions that differ" in capsys.readouterr().err


def test_samples_made_again_do_not_join_the_old_campaign(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path)
    other = write_jsonl(tmp_path / "other.jsonl", *(sample_row(i) for i in range(20, 24)))
    with Store.open(tmp_path / "feedback.db") as store:
        before = store.judgements("quickstart"), store.campaign("quickstart")
    capsys.readouterr()
    assert run(tmp_path, completions=other) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "quickstart-2" in line]
    assert len(said) == 1
    assert manifest(tmp_path)["metrics"]["num_items"] == 8
    assert manifest(tmp_path)["provenance"]["campaign"] == "quickstart-2"
    with Store.open(tmp_path / "feedback.db") as store:
        assert (store.judgements("quickstart"), store.campaign("quickstart")) == before
    third = write_jsonl(tmp_path / "third.jsonl", sample_row(30))
    for completions, name in ((third, "quickstart-3"), (other, "quickstart-2"), (None, None)):
        assert run(tmp_path, completions=completions) == 0
        assert manifest(tmp_path)["provenance"]["campaign"] == (name or "quickstart")
    with Store.open(tmp_path / "feedback.db") as store:
        assert len(store.campaigns()) == 3


def test_labels_are_frozen_when_the_stage_ends(tmp_path: Path, samples: Path) -> None:
    words = ["--ratings", "human", "--overlap", "1", "--quorum", "3"]
    run(tmp_path, *words)
    with Store.open(tmp_path / "feedback.db") as store:
        store.add_annotator(Annotator(name="ann"))
        first = rate(store, verdict=2)
        for values in ({"verdict": -1}, {"verdict": 3}, {"skip": "hard"}):
            last = rate(store, **values)
        store.revise(
            replace(first, id="again", verdict=-3, supersedes=first.id), idempotency_key="again"
        )
        store.revise(
            replace(last, id="gone", skip=UNDONE, supersedes=last.id), idempotency_key="gone"
        )
        rate(store, skip="harder")
    assert run(tmp_path, *words) == 0
    path = tmp_path / "ratings" / "judgements.jsonl"
    assert manifest(tmp_path)["outputs"] == {"judgements.jsonl": file_sha256(path)}
    frozen = path.read_bytes()
    rows = [json.loads(line) for line in frozen.splitlines()]
    assert sorted(each.get("verdict", 0) for each in rows) == [-3, -1, 0, 3]
    assert [each["skip"] for each in rows if "skip" in each] == ["harder"]
    assert not any("supersedes" in each for each in rows)
    with Store.open(tmp_path / "other.db", create=True) as store:
        assert import_file(store, path).num_new == 4  # by itself
        assert {one.id for one in store.judgements()} == {each["id"] for each in rows}
    with Store.open(tmp_path / "feedback.db") as store:
        rate(store, verdict=1)
    assert path.read_bytes() == frozen
    assert run(tmp_path, *words) == 0
    assert len(path.read_bytes().splitlines()) == 5


def test_frozen_rows_are_in_the_items_own_order(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "completions.jsonl", sample_row(0, GOOD, POOR))
    prompt = sample_row(0)["prompt"]
    judged = [
        row(prompt=prompt, completions=[POOR, GOOD], annotator="zoe", verdict=3, more="words"),
        row(prompt=prompt, completions=[GOOD, POOR], annotator="ann", verdict=-1),
    ]
    path = write_jsonl(tmp_path / "judged.jsonl", *judged)
    assert run(tmp_path, "--ratings", str(path)) == 0
    frozen = [each for _, each in read_rows(tmp_path / "ratings" / "judgements.jsonl")]
    assert [each["annotator"] for each in frozen] == ["ann", "zoe"]
    assert len({tuple(each["completions"]) for each in frozen}) == 1
    assert [abs(each["verdict"]) for each in frozen] == [1, 3]
    assert frozen[0]["verdict"] * frozen[1]["verdict"] > 0


def test_one_person_can_finish(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--ratings", "human") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("0 of 48 in; run again")
    assert "16 comparisons x 3 raters; at least 3 different raters are needed" in printed
    assert "--overlap 1" in printed
    with Store.open(tmp_path / "feedback.db") as store:
        for name in ("ann", "bob"):
            store.add_annotator(Annotator(name=name))
            for _ in range(4):
                rate(store, name, verdict=1)
    words = ["--ratings", "human", "--overlap", "1"]
    assert run(tmp_path, *words) == 0
    printed = capsys.readouterr().out
    with Store.open(tmp_path / "feedback.db") as store:
        found = store.campaign("quickstart")
        assert found.overlap == 1
        assert [was["overlap"] for was in found.settings["earlier"]] == [3]
        num_filled = store.progress("quickstart").num_filled
        assert printed.startswith(f"{num_filled} of 16 in; run again")
        assert "different raters" not in printed
        while store.next_assignment("quickstart", "ann"):
            rate(store, verdict=-1)
        assert store.problems() == []
    assert run(tmp_path, *words) == 0
    assert manifest(tmp_path)["metrics"]["num_complete"] == 16
    assert run(tmp_path, "--ratings", "human", "--overlap", "2", "--quorum", "5") == 0
    with Store.open(tmp_path / "feedback.db") as store:
        assert store.campaign("quickstart").overlap == 2
        assert len(store.campaigns()) == 1


def test_pending_names_the_campaign_where_there_are_several(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "--ratings", "human")
    assert "--campaign" not in capsys.readouterr().out
    run(tmp_path, "--ratings", "human", "--campaign", "other")
    assert f"--store {tmp_path / 'feedback.db'} --campaign other" in capsys.readouterr().out


def test_another_guideline_is_a_new_version(tmp_path: Path, samples: Path) -> None:
    run(tmp_path)
    assert manifest(tmp_path)["provenance"]["guideline_version"] == 1
    for words in (["--guideline", "Shorter wins."], ["--guideline", "Shorter wins."], []):
        assert run(tmp_path, *words) == 0
        assert manifest(tmp_path)["provenance"]["guideline_version"] == 2
    with Store.open(tmp_path / "feedback.db") as store:
        assert store.campaign("quickstart").guideline == "Shorter wins."
        assert "helps the person" in store.guideline("quickstart", 1)
        assert {one.guideline_version for one in store.judgements("quickstart")} == {1}


def test_of_two_configs_the_later_wins(tmp_path: Path, samples: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("overlap: 2\nnum_comparisons_per_prompt: 1\n")
    two.write_text("overlap: 1\n")
    assert run(tmp_path, "--config", str(one), f"--config={two}") == 0
    metrics = manifest(tmp_path)["metrics"]
    assert (metrics["num_items"], metrics["num_judgements"]) == (8, 8)


def test_flags_may_have_dashes(tmp_path: Path, samples: Path) -> None:
    assert run(tmp_path, "--num-comparisons-per-prompt=1", "--overlap", "1") == 0
    assert manifest(tmp_path)["metrics"]["num_items"] == 8


def rate(store: Store, annotator: str = "ann", **values: Any) -> Judgement:
    lease = store.next_assignment("quickstart", annotator)
    assert lease is not None
    return answer(store, lease, campaign="quickstart", **values)


def test_comparisons_use_completions_evenly_and_skip_equal_texts(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "completions.jsonl",
        sample_row(0, "a", "b", "c", "d"),
        sample_row(1, "x", "x", "y"),
    )
    made = make_comparisons(read_rows(path), num_per_prompt=2, seed=0)
    assert (made.num_prompts, made.num_identical, len(made.completions)) == (2, 1, 7)
    texts = [sorted(one.text for one in item.completions) for item in made.comparisons]
    assert len(texts) == 3
    assert ["x", "y"] in texts
    four = [text for pair in texts if pair != ["x", "y"] for text in pair]
    assert sorted(four) == ["a", "b", "c", "d"]  # two pairs of four use each once
    prompts = [item.prompt.text for item in made.comparisons]
    assert prompts[0] != prompts[1]  # every prompt's first pair before any second
    again = make_comparisons(read_rows(path), num_per_prompt=2, seed=0)
    assert again == made
    drawn = {
        tuple(item.item for item in make_comparisons(
            read_rows(path), num_per_prompt=1, seed=seed
        ).comparisons)
        for seed in range(20)
    }  # fmt: skip
    assert len(drawn) > 1
