"""`python -m annotation_ui`: what it refuses, and that it serves what it prints."""

import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from annotation_ui.__main__ import annotator_name, main
from rlhf.errors import ConfigError
from rlhf.feedback.store import Store
from rlhf.records import Annotator, Comparison, Completion, Prompt
from tests.annotation_ui.conftest import CAMPAIGN, comparison, make_desk


@pytest.fixture
def store(tmp_path):
    desk = make_desk(tmp_path, [comparison(1)])
    desk.store.close()
    return tmp_path / "feedback.db"


def refusal(capsys, *argv: str) -> tuple[int, str]:
    """The exit code and the one line on standard error."""
    code = main(list(argv))
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return code, line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org"])
def test_only_loopback_is_served(store, capsys, host):
    code, line = refusal(capsys, "--store", str(store), "--host", host)
    assert code == 2
    assert f"--host {host}: only loopback" in line


def test_a_missing_store(tmp_path, capsys):
    code, line = refusal(capsys, "--store", str(tmp_path / "nowhere.db"))
    assert code == 2
    assert "nowhere.db" in line


def test_a_damaged_store(tmp_path, capsys):
    path = tmp_path / "feedback.db"
    path.write_bytes(b"not a database at all, but long enough to be read as one" * 10)
    before = path.read_bytes()
    code, line = refusal(capsys, "--store", str(path))
    assert code == 3
    assert "feedback.db" in line
    assert path.read_bytes() == before


def test_an_unknown_campaign_names_the_nearest(store, capsys):
    code, line = refusal(capsys, "--store", str(store), "--campaign", "everday")
    assert code == 2
    assert "everyday" in line


def test_an_empty_campaign(store, capsys):
    with Store.open(store) as opened:
        opened.create_campaign("empty")
    code, line = refusal(capsys, "--store", str(store), "--campaign", "empty")
    assert code == 3
    assert "holds no comparison" in line


def test_a_store_without_campaigns(tmp_path, capsys):
    Store.open(tmp_path / "new.db", create=True).close()
    code, line = refusal(capsys, "--store", str(tmp_path / "new.db"))
    assert code == 3
    assert "no campaign" in line


def test_several_campaigns_are_named(store, capsys):
    with Store.open(store) as opened:
        opened.create_campaign("second")
    code, line = refusal(capsys, "--store", str(store))
    assert code == 2
    assert "everyday, second" in line


def test_a_campaign_of_another_task(store, capsys):
    with Store.open(store) as opened:
        opened.create_campaign("ranks", task="ranking")
        item = Comparison(
            prompt=Prompt(content="q"),
            completions=tuple(Completion(text=text) for text in "abc"),
            item="x",
        )
        opened.add_comparisons("ranks", [item])
    code, line = refusal(capsys, "--store", str(store), "--campaign", "ranks")
    assert code == 2
    assert "ranking" in line


def test_a_simulated_raters_name_is_refused(store, capsys):
    with Store.open(store) as opened:
        opened.add_annotator(Annotator(name="robot", simulated=True))
    code, line = refusal(capsys, "--store", str(store), "--annotator", "robot")
    assert code == 3
    assert "robot" in line


def test_a_port_in_use(store, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = refusal(capsys, "--store", str(store), "--port", str(port))
    assert code == 2
    assert f"127.0.0.1:{port}" in line
    assert "--port 0" in line


def test_an_impossible_port(store, capsys):
    code, line = refusal(capsys, "--store", str(store), "--port", "70000")
    assert code == 2
    assert "70000" in line


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\u202eb"])
def test_an_unreadable_annotator_name_is_refused(name):
    with pytest.raises(ConfigError, match="--annotator"):
        annotator_name(name)


def test_the_annotator_is_the_user_unless_named(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "grace")
    assert annotator_name(None) == "grace"
    assert annotator_name(" ada ") == "ada"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: --store"),
        (["--stor", "x"], "unknown flag --stor; did you mean '--store'?"),
        (["--store=x", "--anotator=ada"], "did you mean '--annotator'?"),
        (["--store", "x", "--port", "many"], "invalid int value: 'many'"),
        (["--store", "x", "more"], "unrecognized arguments: more"),
        (["--store", ":memory:"], "in memory"),
    ],
)
def test_usage_errors_are_one_line(capsys, words, message):
    code, line = refusal(capsys, *words)
    assert code == 2
    assert message in line


def test_what_nobody_foresaw_is_one_line_unless_asked_for_more(store, capsys, monkeypatch):
    def fail(*_args):
        raise ZeroDivisionError("no\nsuch")

    monkeypatch.setattr("annotation_ui.__main__.register", fail)
    code, line = refusal(capsys, "--store", str(store))
    assert (code, "unexpected ZeroDivisionError: no such" in line) == (4, True)
    assert main(["--store", str(store), "--debug"]) == 4
    assert "Traceback" in capsys.readouterr().err


def test_usage_has_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "python -m annotation_ui --store" in capsys.readouterr().out


def test_the_printed_link_opens_the_page(store):
    command = [sys.executable, "-m", "annotation_ui", "--store", str(store), "--port", "0"]
    server = subprocess.Popen(
        [*command, "--annotator", "ada"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        link = next(found[0] for line in server.stdout if (found := re.search(r"http\S+", line)))
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*/join\?token=\S+", link)
        with httpx.Client(follow_redirects=True) as client:
            page = client.get(link, headers={"accept": "text/html"})
            assert page.status_code == 200
            assert "Which completion is better?" in page.text
            view = client.get(page.url.join("/api/view")).json()
            assert (view["annotator"], view["campaign"]) == ("ada", CAMPAIGN)
    finally:
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=20)
    assert server.returncode == 0
    assert errors == ""
