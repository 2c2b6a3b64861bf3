"""`python -m annotation_ui`: what it refuses, what it prints, and that it serves what it prints."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from annotation_ui.__main__ import (
    _parser,
    annotator_name,
    choose_campaign,
    main,
    plain_text_warning,
    provider_of,
    ways_in,
)
from annotation_ui.hosts import Hosts
from rlhf.errors import ConfigError
from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.annotation_ui.conftest import CAMPAIGN, add_account, comparison, make_store
from tests.annotation_ui.test_home import simulate_all

ADDRESS = "http://127.0.0.1:7860"


@pytest.fixture
def store(tmp_path):
    make_store(tmp_path, [comparison(1)]).close()
    return tmp_path / "feedback.db"


@pytest.fixture
def opened(store):
    with Store.open(store) as opened:
        yield opened


def refusal(capsys, *argv: str) -> tuple[int, str]:
    """The exit code and the one line on standard error."""
    code = main(list(argv))
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return code, line


# ---- what it refuses


def test_a_campaign_of_a_missing_store(tmp_path, capsys):
    options = ["--store", str(tmp_path / "nowhere.db"), "--campaign", CAMPAIGN]
    code, line = refusal(capsys, *options)
    assert code == 2
    assert "nowhere.db: no such feedback store; `rlhf feedback import` makes one" in line
    assert not (tmp_path / "nowhere.db").exists()


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
    assert "holds no item" in line


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


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\u202eb", "x" * 65])
def test_an_unreadable_annotator_name_is_refused(name):
    with pytest.raises(ConfigError, match="--annotator"):
        annotator_name(name)


def test_a_name_is_kept_in_one_form():
    assert annotator_name(" ada ") == "ada"
    assert annotator_name("Zoe\u0308") == "Zo\u00eb"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: --store"),
        (["--stor", "x"], "unknown flag --stor; did you mean '--store'?"),
        (["--store=x", "--anotator=ada"], "did you mean '--annotator'?"),
        (["--store", "x", "--port", "many"], "invalid int value: 'many'"),
        (["--store", "x", "more"], "unrecognized arguments: more"),
        (["--store", ":memory:"], "in memory"),
        (["--store", "x", "--public_url", "rate.example.org"], "give https://HOST"),
        (["--store", "x", "--oidc_client_id", "me"], "--oidc_client_id needs --oidc_issuer"),
        (["--store", "x", "--oidc_domain", "a.org"], "--oidc_domain needs --oidc_issuer"),
        (["--store", "x", "--oidc_issuer", "https://a.org"], "needs --oidc_client_id"),
        (
            ["--store", "x", "--oidc_issuer", "http://a.org", "--oidc_client_id", "me"],
            "give the provider's https:// address",
        ),
        (
            ["--store", "x", "--oidc_issuer", "https://a.org", "--oidc_client_id", "me",
             "--oidc_domain", "me@a.org"],
            "the part after the @",
        ),
    ],
)  # fmt: skip
def test_usage_errors_are_one_line(capsys, words, message):
    code, line = refusal(capsys, *words)
    assert code == 2
    assert message in line


def test_what_nobody_foresaw_is_one_line_unless_asked_for_more(store, capsys, monkeypatch):
    def fail(*_args):
        raise ZeroDivisionError("no\nsuch")

    monkeypatch.setattr("annotation_ui.__main__.choose_campaign", fail)
    code, line = refusal(capsys, "--store", str(store))
    assert (code, "unexpected ZeroDivisionError: no such" in line) == (4, True)
    assert main(["--store", str(store), "--debug"]) == 4
    assert "Traceback" in capsys.readouterr().err


def test_usage_has_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "python -m annotation_ui --store" in capsys.readouterr().out


# ---- what it makes of the options


def test_the_secret_of_the_provider_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("RLHF_OIDC_CLIENT_SECRET", "between us")
    words = ["--store", "x", "--oidc_issuer", "https://a.org", "--oidc_client_id", "me"]
    provider = provider_of(_parser().parse_args([*words, "--oidc_domain", "b.org"]))
    assert (provider.client_secret, provider.domain) == ("between us", "b.org")
    assert provider_of(_parser().parse_args(["--store", "x"])) is None


def test_several_campaigns_are_all_offered(opened):
    opened.create_campaign("second")
    assert choose_campaign(opened, None) is None
    assert choose_campaign(opened, CAMPAIGN) == CAMPAIGN


@pytest.mark.parametrize("wanted", [None, "simulated"])
def test_a_simulated_campaign_is_copied_for_people(opened, capsys, wanted):
    opened.create_campaign("simulated")
    opened.add_comparisons("simulated", [comparison(1)])
    simulate_all(opened, "simulated")
    assert choose_campaign(opened, wanted) == (wanted and "simulated-people")
    said = "Simulated raters judged 'simulated'; people rate its items in 'simulated-people'."
    assert said in capsys.readouterr().out
    assert opened.progress("simulated-people").num_items == 1


def test_the_first_start_prints_the_leads_invite(opened):
    said = ways_in(opened, ADDRESS, None, None)
    token = re.search(r"/join\?token=(\S+)", said)[1]
    invite = opened.read_invite(token)
    assert (invite.role, invite.annotator) == ("lead", None)
    opened.redeem_invite(token, name="lena")
    again = ways_in(opened, ADDRESS, None, None)
    assert "/join" not in again
    assert f"at {ADDRESS}" in again


def test_a_new_store_is_made_for_the_first_lead(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(
        "annotation_ui.__main__._serve",
        lambda store, *_: said.append(ways_in(store, ADDRESS, None, None)),
    )
    assert main(["--store", str(tmp_path / "new.db")]) == 0
    assert "It holds no campaign yet" in said[0]
    assert "/join?token=" in said[0]
    assert (tmp_path / "new.db").exists()


def test_the_first_leads_invites_of_earlier_starts_are_withdrawn(opened):
    first, second = (
        re.search(r"token=(\S+)", ways_in(opened, ADDRESS, None, None))[1] for _ in range(2)
    )
    assert opened.read_invite(second).role == "lead"
    with pytest.raises(Exception, match="withdrawn"):
        opened.read_invite(first)


def test_a_named_annotator_gets_a_link_of_their_own(opened):
    add_account(opened, "lena", "lead")
    said = ways_in(opened, ADDRESS, CAMPAIGN, "ada")
    (token,) = re.findall(r"token=(\S+)", said)
    assert opened.read_invite(token).annotator == "ada"
    assert "campaign 'everyday'" in said


@pytest.mark.parametrize(
    ("hosts", "warned"),
    [
        (Hosts(), False),
        (Hosts(host="0.0.0.0"), True),
        (Hosts(host="10.0.0.5"), True),
        (Hosts(host="0.0.0.0", public_url="https://a.org"), False),
        (Hosts(public_url="http://a.org"), True),
    ],
)
def test_unencrypted_passwords_are_warned_of(hosts, warned):
    assert (plain_text_warning(hosts) is not None) is warned


# ---- the whole command


@pytest.fixture
def start(store):
    """Starts the command; its output up to the line that says how to stop it."""
    running = []

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "annotation_ui", "--store", str(store), "--port", "0"]
        server = subprocess.Popen(
            [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(server)
        said = ""
        for line in server.stdout:
            said += line
            if "Ctrl+C" in line:
                return said
        raise AssertionError(server.communicate()[1])

    yield run
    for server in running:
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
        assert (server.returncode, errors) == (0, "")


def test_the_printed_links_open_the_pages(start, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    said = start("--annotator", "ada")
    own, lead = re.findall(r"^  (http://127\.0\.0\.1:[1-9]\d*)/join\?token=(\S+)$", said, re.M)
    with httpx.Client(base_url=own[0], follow_redirects=True) as client:
        assert "Continue as ada" in client.get("/join", params={"token": own[1]}).text
        page = client.post("/join", data={"token": own[1]})
        assert page.url.path == "/app/"
        view = client.get("/api/view", params={"campaign": CAMPAIGN}).json()
        assert (view["annotator"], view["item"]["item"]) == ("ada", "item-1")
        assert "Make the lead" in client.get("/join", params={"token": lead[1]}).text


def test_it_serves_other_addresses_when_told_to(start):
    said = start("--host", "0.0.0.0")
    assert "unencrypted" in said
    address = re.search(r"at (http://127\.0\.0\.1:\d+)$", said, re.M)[1]
    for host, status in (("10.0.0.5", 200), ("attacker.example", 403)):
        assert httpx.get(f"{address}/sign-in", headers={"host": host}).status_code == status


def test_the_script_is_the_command():
    script = Path(__file__).parents[2] / "scripts" / "annotate.sh"
    assert '-m annotation_ui "$@"' in script.read_text("utf-8")
