"""`rlhf pull`: what it prints and how it refuses."""

from rlhf.cli import main
from rlhf.models.registry import NAMED_MODELS, model_folder


def test_help_lists_the_named_models_with_licences(capsys):
    assert main(["pull", "--help"]) == 0
    said = capsys.readouterr().out
    assert "example: rlhf pull smollm2-135m-instruct-q4" in said
    for model in NAMED_MODELS.values():
        assert f"{model.summary} ({model.licence})" in said


def test_model_in_the_cache_is_named_on_standard_output(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path))
    folder = model_folder("smollm2-135m-instruct-q4")
    folder.mkdir(parents=True)
    (folder / "ORIGIN.json").write_text("{}")
    assert main(["pull", "smollm2-135m-instruct-q4"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{folder}\n"
    assert "already there" in said.err


def test_unknown_name_exits_2_with_the_nearest(capsys):
    assert main(["pull", "smolm2-135m-instruct-q4"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'smollm2-135m-instruct-q4'?" in said
    assert said.count("\n") == 1


def test_no_name_and_two_names_exit_2(capsys):
    assert main(["pull"]) == 2
    assert main(["pull", "a", "b"]) == 2
    assert capsys.readouterr().err.count("give the name of one model") == 2


def test_cache_that_cannot_be_written_exits_4_in_one_line(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "file"))
    assert main(["pull", "smollm2-135m-instruct-q4"]) == 4
    said = capsys.readouterr().err
    assert "Not a directory" in said
    assert said.count("\n") == 1
