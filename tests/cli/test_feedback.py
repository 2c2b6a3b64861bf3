"""`rlhf feedback import | export | check` as a user meets it: output, exit codes, whole files."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.feedback import imports
from rlhf.feedback.store import Store
from tests.feedback.makers import row, write_jsonl


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    return write_jsonl(
        tmp_path / "ratings.jsonl", row(), row(annotator="bob", verdict=-2), row(prompt="other")
    )


def test_import_export_check(
    tmp_path: Path, ratings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "feedback.db")
    assert main(["feedback", "import", str(ratings), "--store", store, "--campaign", "c"]) == 0
    assert "3 new judgements in c (0 were there), 2 new items" in capsys.readouterr().out
    assert main(["feedback", "import", str(ratings), "--store", store, "--campaign", "c"]) == 0
    assert "0 new judgements in c (3 were there), 0 new items" in capsys.readouterr().out
    out = tmp_path / "out.jsonl"
    words = ["feedback", "export", "--store", store, "--campaign", "c", "--output", str(out)]
    assert main(words) == 0
    assert "3 rows from 3 judgements" in capsys.readouterr().out
    exported = [json.loads(line) for line in out.read_text().splitlines()]
    imported = [json.loads(line) for line in ratings.read_text().splitlines()]
    assert [{key: one[key] for key in row()} for one in exported] == imported
    assert main([*words, "--format", "preference"]) == 0
    printed = capsys.readouterr().out
    assert "1 rows from 1 judgements" in printed  # the two on the first item disagree
    assert "num_equal_votes: 1" in printed
    assert main(["feedback", "check", "--store", store]) == 0
    assert "whole (1 campaigns, 3 judgements)" in capsys.readouterr().out


def test_unknown_keys_are_named_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_jsonl(tmp_path / "f.jsonl", row(rationle="typo"))
    store = str(tmp_path / "feedback.db")
    assert main(["feedback", "import", str(path), "--store", store, "--campaign", "mine"]) == 0
    printed = capsys.readouterr()
    assert "1 rows with unknown key 'rationle'; did you mean 'rationale'?" in printed.err
    assert "1 rows were of campaign 'c' and are in mine now" in printed.out


def test_simulated_export_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_jsonl(tmp_path / "f.jsonl", row(simulated=True))
    store = str(tmp_path / "feedback.db")
    main(["feedback", "import", str(path), "--store", store])
    assert "1 of the judgements simulated" in capsys.readouterr().out
    out = str(tmp_path / "out.jsonl")
    main(["feedback", "export", "--store", store, "--campaign", "c", "--output", out])
    assert "SIMULATED" in capsys.readouterr().out


def test_check_prints_each_problem_and_exits_3(
    tmp_path: Path, ratings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sqlite3
    from contextlib import closing

    store = tmp_path / "feedback.db"
    main(["feedback", "import", str(ratings), "--store", str(store)])
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("UPDATE comparisons SET num_raters = 9")
        connection.commit()
    capsys.readouterr()
    assert main(["feedback", "check", "--store", str(store)]) == 3
    printed = capsys.readouterr()
    assert printed.out.count("counted 9 raters") == 2
    assert "2 broken invariants" in printed.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("", 2, "required: COMMAND"),
        ("imprt f", 2, "invalid choice: 'imprt'"),
        ("import none.jsonl --store S", 2, "none.jsonl: no such file"),
        ("import RATINGS", 2, "required: --store"),
        ("import RATINGS --store S --tsk ranking", 2, "unknown key 'tsk'; did you mean 'task'?"),
        ("import RATINGS --store S --task rating", 2, "invalid choice: 'rating'"),
        ("import RATINGS --store FOLDER", 2, "a folder, not a feedback store"),
        ("import RATINGS --store :memory:", 2, "in memory would be lost"),
        ("import GHOST --store S", 3, "ghost.jsonl:1: "),
        ("import RATINGS --store postgresql://no-such-host.invalid/d", 2, "no-such-host.invalid"),
        ("check --store postgresql://127.0.0.1:9/d", 2, "no connection to 127.0.0.1"),
        ("import RATINGS --store mysql://h/d", 2, "give a SQLite path or a postgresql:// URL"),
        ("import BROKEN --store S", 3, "broken.jsonl:2: not valid JSON"),
        ("import RATINGS --store BROKEN", 3, "damaged, or no feedback store"),
        ("export --store none.db --campaign c --output o.jsonl", 2, "no such feedback store"),
        ("export --store STORE --campaign d --output o.jsonl", 2, "no campaign 'd'"),
        ("export --store STORE --campaign c --output o.csv", 2, "not one of .jsonl"),
        (
            "export --store STORE --campaign c --output o.jsonl --format demonstrations",
            3,
            "nothing to export as demonstrations",
        ),
        ("check --store BROKEN", 3, "damaged, or no feedback store"),
        ("check --store none.db", 2, "no such feedback store"),
    ],
)
def test_mistakes_are_one_line_with_the_right_exit_code(
    tmp_path: Path,
    ratings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = write_jsonl(tmp_path / "broken.jsonl", row(), "{oops")
    main(["feedback", "import", str(ratings), "--store", "store.db", "--campaign", "c"])
    capsys.readouterr()
    ghost = write_jsonl(tmp_path / "ghost.jsonl", row(supersedes="nobody"))
    before = sorted(tmp_path.iterdir())
    names = {
        "GHOST": ghost,
        "RATINGS": ratings,
        "BROKEN": broken,
        "STORE": "store.db",
        "FOLDER": tmp_path,
    }
    argv = [str(names.get(word, word)) for word in words.split()]
    assert main(["feedback", *argv]) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before  # no new store, no half-written export


def test_failed_import_leaves_a_store_that_another_process_made(
    tmp_path: Path, ratings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "feedback.db"
    made = imports.import_rows

    def made_meanwhile(*args: Any, **values: Any) -> imports.ImportReport:
        if not store.exists():
            with Store.open(store, create=True) as opened:
                imports.import_file(opened, ratings, campaign="theirs")
        return made(*args, **values)

    monkeypatch.setattr(imports, "import_rows", made_meanwhile)
    ghost = write_jsonl(tmp_path / "ghost.jsonl", row(supersedes="nobody"))
    assert main(["feedback", "import", str(ghost), "--store", str(store)]) == 3
    with Store.open(store) as opened:
        assert len(opened.judgements("theirs")) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "feedback.db", "ghost.jsonl", "ratings.jsonl",
    ]  # fmt: skip


def test_import_joins_a_store_that_another_process_made_meanwhile(
    tmp_path: Path, ratings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "feedback.db"
    made = imports.import_rows

    def made_meanwhile(*args: Any, **values: Any) -> imports.ImportReport:
        monkeypatch.setattr(imports, "import_rows", made)
        with Store.open(store, create=True) as opened:
            imports.import_file(opened, ratings, campaign="theirs")
        return made(*args, **values)

    monkeypatch.setattr(imports, "import_rows", made_meanwhile)
    more = write_jsonl(tmp_path / "more.jsonl", row(annotator="eve"))
    assert main(["feedback", "import", str(more), "--store", str(store)]) == 0
    with Store.open(store) as opened:
        assert [campaign.name for campaign in opened.campaigns()] == ["theirs", "c"]
        assert len(opened.judgements()) == 4


def test_failed_import_leaves_an_existing_store_as_it_was(tmp_path: Path, ratings: Path) -> None:
    store = tmp_path / "feedback.db"
    main(["feedback", "import", str(ratings), "--store", str(store)])
    with Store.open(store) as opened:
        before = opened.judgements()
    broken = write_jsonl(tmp_path / "more.jsonl", row(annotator="new"), row(verdict=9))
    assert main(["feedback", "import", str(broken), "--store", str(store)]) == 3
    with Store.open(store) as opened:
        assert opened.judgements() == before
        assert {annotator.name for annotator in opened.annotators()} == {"ann", "bob"}


@pytest.mark.parametrize(
    "command", ["import", "export", "check", "backup", "campaign", "agreement", "reliability"]
)
def test_help_of_each_subcommand_has_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["feedback", command, "--help"])
    assert caught.value.code == 0
    assert f"example: rlhf feedback {command}" in capsys.readouterr().out


@pytest.fixture
def completions(tmp_path: Path) -> Path:
    return write_jsonl(
        tmp_path / "completions.jsonl",
        {"prompt": "Name a tree.", "completions": ["Oak", "Brick"], "source": ["m", "m"]},
        {"prompt": "Name a bird.", "completions": ["Owl", "Owl"]},
    )


def test_campaign_create_makes_it_once(
    tmp_path: Path, completions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "feedback.db")
    file = Path(__file__).parents[2] / "configs" / "campaigns" / "helpful.yaml"
    words = ["feedback", "campaign", "create", str(file), "--store", store]
    assert main([*words, "--completions", str(completions)]) == 0
    printed = capsys.readouterr().out
    assert "campaign 'helpful' (pairwise) made: 1 items, 3 raters for each" in printed
    assert "left out: 1 pairs whose completions say the same" in printed
    assert main([*words, "--completions", str(completions)]) == 0
    assert "is there already" in capsys.readouterr().out
    with Store.open(store) as opened:
        assert opened.campaign("helpful").overlap == 3


def test_campaign_create_with_a_mistake_makes_no_store(
    tmp_path: Path, completions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "campaign.yaml"
    file.write_text("name: c\ntask: pairwise\noverlp: 2\ncompletions: completions.jsonl\n")
    store = tmp_path / "feedback.db"
    assert main(["feedback", "campaign", "create", str(file), "--store", str(store)]) == 2
    said = capsys.readouterr().err
    assert "campaign.yaml: unknown key 'overlp'; did you mean 'overlap'?" in said
    assert said.count("\n") == 1
    assert not store.exists()
    assert main(["feedback", "campaign", "create", "none.yaml", "--store", str(store)]) == 2
    file.write_text("name: c\ntask: pairwise\ncompletions: [{prompt: p}]\n")
    assert main(["feedback", "campaign", "create", str(file), "--store", str(store)]) == 3
    assert not store.exists()


def test_backup_is_a_store(
    tmp_path: Path, ratings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, copy = str(tmp_path / "feedback.db"), str(tmp_path / "copy.db")
    main(["feedback", "import", str(ratings), "--store", store])
    assert main(["feedback", "backup", copy, "--store", store]) == 0
    assert "a copy of" in capsys.readouterr().out
    with Store.open(copy) as opened:
        assert len(opened.judgements()) == 3
    assert main(["feedback", "backup", copy, "--store", store]) != 0  # never over an existing file


def test_ratings_of_other_tools_are_recognised_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_jsonl(tmp_path / "p.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"})
    store = str(tmp_path / "feedback.db")
    words = ["feedback", "import", str(file), "--store", store]
    assert main([*words, "--annotator", "ann"]) == 2
    assert "--campaign is missing" in capsys.readouterr().err
    words += ["--campaign", "c"]
    assert main(words) == 3
    assert "p.jsonl:1: nobody is named as the rater; give --annotator" in capsys.readouterr().err
    assert not Path(store).exists()
    assert main([*words, "--annotator", "ann"]) == 0
    assert "1 rows, TRL's preference pairs" in capsys.readouterr().out
    assert main([*words, "--unrated"]) == 0
    assert "0 new items in c, unrated" in capsys.readouterr().out
    assert main([*words, "--format", "unpaired", "--annotator", "ann"]) == 3
    assert "not one of TRL's unpaired preference: no 'label'" in capsys.readouterr().err
    assert main([*words, "--annotator", "a", "--question", "q=verdit"]) == 2
    assert "did you mean 'verdict'?" in capsys.readouterr().err


def test_judgements_name_their_raters_themselves(
    tmp_path: Path, ratings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "feedback.db"
    words = ["feedback", "import", str(ratings), "--store", str(store)]
    assert main([*words, "--annotator", "eve"]) == 2
    assert "which say that themselves" in capsys.readouterr().err
    assert not store.exists()


def test_export_wants_a_place_and_takes_parquet(
    tmp_path: Path, ratings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = str(tmp_path / "feedback.db"), tmp_path / "out.parquet"
    main(["feedback", "import", str(ratings), "--store", store])
    words = ["feedback", "export", "--store", store, "--campaign", "c"]
    assert main(words) == 2
    assert "give --output FILE, --push_to_hub REPO" in capsys.readouterr().err
    words += ["--output", str(out)]
    assert main([*words, "--private"]) == 2
    assert main([*words, "--format", "unpaired", "--method", "dawid_skene"]) == 0
    assert out.stat().st_size > 100


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    from rlhf.cli.feedback import COMMANDS

    with pytest.raises(SystemExit):
        main(["feedback", "--help"])
    printed = capsys.readouterr().out
    lines = [line.strip() for line in printed.splitlines()]
    assert [name for name in COMMANDS if not any(one.startswith(name) for one in lines)] == []


def test_campaign_create_samples_from_a_real_model(tmp_path: Path, tiny_model: Path) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", {"prompt": "Wrap it in"}, {"prompt": "How do I"})
    file = tmp_path / "campaign.yaml"
    sample = (
        f"sample: {{models: [{tiny_model}, {tiny_model}], dataset_name: prompts.jsonl, "
        "num_completions: 2, max_new_tokens: 4, seed: 3}"
    )
    file.write_text(f"name: c\ntask: ranking\n{sample}\n")
    store = str(tmp_path / "feedback.db")
    assert main(["feedback", "campaign", "create", str(file), "--store", store]) == 0
    with Store.open(store) as opened:
        items = opened.comparisons("c")
    assert [item.prompt.content for item in items] == ["Wrap it in", "How do I"]
    assert [len(item.completions) for item in items] == [4, 4]
    assert all(one.source and one.ended is not None for one in items[0].completions)


def test_the_examples_are_commands_that_parse() -> None:
    import shlex

    from rlhf.cli.feedback import COMMANDS, _parser, command_module

    for name in COMMANDS:
        words = shlex.split(command_module(name).EXAMPLE)
        assert words[:3] == ["rlhf", "feedback", name]
        assert _parser(words[2:]).parse_args(words[2:]).command == name
