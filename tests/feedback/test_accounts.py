"""Accounts, invites, identities, sessions and throttling, on both engines."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from rlhf.errors import ConfigError, DataError
from rlhf.feedback.store import InviteError, Store
from rlhf.records import Annotator
from tests.feedback.makers import NOON, comparison, fill, judgement
from tests.feedback.test_assignments import start_processes

DAY = timedelta(days=1)


@pytest.fixture
def lead(store: Store) -> str:
    store.add_annotator(Annotator(name="lea", role="lead"))
    return "lea"


def test_accounts_say_who_may_sign_in(store: Store, lead: str) -> None:
    store.add_annotator(Annotator(name="robot", simulated=True))
    store.set_password_hash(lead, "argon2...")
    store.set_role("lea", "lead")
    named = {account.name: account for account in store.accounts()}
    assert list(named) == ["lea", "robot"]
    assert (named["lea"].role, named["lea"].has_password, named["lea"].disabled) == (
        *("lead", True),
        False,
    )
    assert named["robot"].simulated
    assert store.account("lea") == named["lea"]
    assert (store.password_hash("lea"), store.password_hash("nobody")) == ("argon2...", None)
    with pytest.raises(ConfigError, match="no annotator 'zoe'"):
        store.account("zoe")
    with pytest.raises(DataError, match="no person who can sign in"):
        store.set_password_hash("robot", "argon2...")


def test_the_last_lead_stays_a_lead(store: Store, lead: str) -> None:
    assert store.has_lead()
    for change in (lambda: store.set_role(lead, "rater"), lambda: store.set_disabled(lead, True)):
        with pytest.raises(DataError, match="the only lead"):
            change()
    store.add_annotator(Annotator(name="leo", role="lead"))
    store.set_disabled(lead, True)
    with pytest.raises(DataError, match="the only lead"):
        store.set_role("leo", "rater")
    store.set_disabled(lead, False)
    store.set_role("leo", "rater")
    assert store.account("leo").role == "rater"
    with pytest.raises(ConfigError, match="no role 'boss'"):
        store.set_role("leo", "boss")  # type: ignore[arg-type]


def test_a_store_of_raters_and_robots_has_no_lead(store: Store) -> None:
    store.add_annotator(Annotator(name="ann"))
    store.add_annotator(Annotator(name="robot", simulated=True, role="lead"))
    assert not store.has_lead()


def test_invite_makes_an_account_once(store: Store, lead: str) -> None:
    token = store.create_invite(role="lead", created_by=lead, now=NOON)
    invite = store.read_invite(token, now=NOON)
    assert (invite.role, invite.annotator, invite.created_by) == ("lead", None, "lea")
    assert invite.expires_at == NOON + 7 * DAY
    with pytest.raises(InviteError, match="taken"):
        store.redeem_invite(token, name="lea", now=NOON)
    for name in ("", "  ", None, "x" * 101, "a\nb", "\u202e"):
        with pytest.raises(InviteError, match="Choose a name"):
            store.redeem_invite(token, name=name, now=NOON)
    made = store.redeem_invite(token, name=" Zoe ", now=NOON)
    assert (made.name, made.role, made.simulated) == ("Zoe", "lead", False)
    for use in (store.read_invite, store.redeem_invite):
        with pytest.raises(InviteError, match="used already"):
            use(token, now=NOON)
    assert store.problems() == []


def test_invite_for_somebody_signs_them_in(store: Store, lead: str) -> None:
    store.add_annotator(Annotator(name="ann"))
    token = store.create_invite(annotator="ann", role="lead", now=NOON)
    assert store.read_invite(token, now=NOON).role == "rater"  # their own, not what was asked
    assert store.redeem_invite(token, name="ignored", now=NOON).name == "ann"
    store.set_disabled("ann", True)
    with pytest.raises(InviteError, match="cannot sign in"):
        store.create_invite(annotator="ann")


def test_invites_expire_and_are_withdrawn(store: Store, lead: str) -> None:
    old = store.create_invite(lifetime_s=60, now=NOON)
    kept = store.create_invite(created_by=lead, now=NOON)
    withdrawn = store.create_invite(now=NOON)
    listed = store.invites(now=NOON + timedelta(seconds=59))
    assert len(listed) == 3
    store.revoke_invite(listed[2].id)
    later = NOON + timedelta(seconds=60)
    assert [one.created_by for one in store.invites(now=later)] == ["lea"]
    with pytest.raises(InviteError, match="expired"):
        store.redeem_invite(old, name="x", now=later)
    with pytest.raises(InviteError, match="withdrawn"):
        store.redeem_invite(withdrawn, name="x", now=later)
    with pytest.raises(InviteError, match="not known"):
        store.redeem_invite(kept[:-1], name="x", now=later)
    with pytest.raises(ConfigError, match="no invite 99"):
        store.revoke_invite(99)
    assert store.redeem_invite(kept, name="x", now=later).name == "x"
    store.revoke_invite(listed[1].id)  # too late: it stays used
    assert store.problems() == []


_REDEEMING_PROCESS = """
import sys
from rlhf.feedback.store import InviteError, Store
with Store.open(sys.argv[1]) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for token in sys.argv[3].split(","):
        try:
            print(store.redeem_invite(token, name=sys.argv[2] + token[:8]).name, flush=True)
        except InviteError as error:
            assert "used already" in str(error), error
"""


def test_two_servers_redeem_each_invite_exactly_once(location: str) -> None:
    with Store.open(location, create=True) as store:
        tokens = [store.create_invite() for _ in range(12)]
        words = ",".join(tokens)
        workers = start_processes(
            _REDEEMING_PROCESS, (location, "a", words), (location, "b", words)
        )
        made = []
        for worker in workers:
            output, errors = worker.communicate(timeout=60)
            assert worker.returncode == 0, errors
            made += output.split()
        assert sorted(name[1:] for name in made) == sorted(token[:8] for token in tokens)
        assert sorted(account.name for account in store.accounts()) == sorted(made)
        assert store.problems() == []


def test_identity_signs_one_account_in(store: Store, lead: str) -> None:
    store.add_annotator(Annotator(name="ann"))
    assert store.find_identity("https://id", "42") is None
    store.link_identity("ann", "https://id", "42")
    store.link_identity("ann", "https://id", "42")
    found = store.find_identity("https://id", "42")
    assert found is not None
    assert found.name == "ann"
    assert store.find_identity("https://other", "42") is None
    with pytest.raises(DataError, match="belongs to another account"):
        store.link_identity("lea", "https://id", "42")


def test_session_lasts_until_it_ends(store: Store, lead: str) -> None:
    token = store.open_session(lead, lifetime_s=60, now=NOON)
    other = store.open_session(lead, lifetime_s=600, now=NOON)
    late = NOON + timedelta(seconds=60)
    found = store.session(token, now=late - timedelta(microseconds=1))
    assert found is not None
    assert (found.name, found.role) == ("lea", "lead")
    assert store.session(token, now=late) is None
    store.extend_session(token, lifetime_s=600, now=late)  # over is over
    assert store.session(token, now=late) is None
    store.extend_session(other, lifetime_s=7200, now=late)
    assert store.session(other, now=NOON + timedelta(seconds=7200)) is not None
    store.end_session(other)
    assert store.session(other, now=NOON) is None
    assert store.session("", now=NOON) is None


def test_sessions_of_a_disabled_account_are_over(store: Store, lead: str) -> None:
    store.add_annotator(Annotator(name="ann"))
    tokens = [store.open_session("ann", lifetime_s=60, now=NOON) for _ in range(3)]
    store.end_session(tokens[0])
    assert [store.session(token, now=NOON) is None for token in tokens] == [True, False, False]
    store.end_sessions("ann")
    assert store.session(tokens[1], now=NOON) is None
    token = store.open_session("ann", lifetime_s=60, now=NOON)
    store.set_disabled("ann", True)
    assert store.session(token, now=NOON) is None
    with pytest.raises(DataError, match="cannot sign in"):
        store.open_session("ann", lifetime_s=60, now=NOON)
    store.set_disabled("ann", False)
    assert store.session(token, now=NOON) is None


def test_role_in_a_session_is_the_one_that_holds_now(store: Store, lead: str) -> None:
    store.add_annotator(Annotator(name="ann"))
    token = store.open_session("ann", lifetime_s=60, now=NOON)
    store.set_role("ann", "lead")
    found = store.session(token, now=NOON)
    assert found is not None
    assert found.role == "lead"


def test_failed_sign_ins_are_counted_by_key_and_time(store: Store) -> None:
    for second in (0, 10, 20):
        store.record_sign_in_failure("name:ada", NOON + timedelta(seconds=second))
    store.record_sign_in_failure("address:1.2.3.4", NOON)
    since = NOON + timedelta(seconds=10)
    now = NOON + timedelta(seconds=20)
    assert store.sign_in_failures("name:ada", since=since, now=now) == 2
    assert store.sign_in_failures("name:ada", since=NOON, now=now) == 3
    assert store.sign_in_failures("name:bob", since=NOON, now=now) == 0
    store.clear_sign_in_failures("name:ada")
    assert store.sign_in_failures("name:ada", since=NOON, now=now) == 0
    assert store.sign_in_failures("address:1.2.3.4", since=NOON, now=now) == 1
    store.record_sign_in_failure("name:bob", NOON + 2 * DAY)  # a day later the rest is gone
    assert store.sign_in_failures("address:1.2.3.4", since=NOON, now=NOON + 2 * DAY) == 0


def test_no_secret_is_in_the_file(sqlite_store: Store, store_path: Path) -> None:
    sqlite_store.add_annotator(Annotator(name="ann"))
    secrets = [
        sqlite_store.create_invite(),
        sqlite_store.open_session("ann", lifetime_s=60),
    ]
    sqlite_store.record_sign_in_failure("address:203.0.113.77")
    sqlite_store.close()
    files = [path.read_bytes() for path in store_path.parent.iterdir()]
    assert all(len(secret) >= 43 for secret in secrets)  # 256 bits
    for secret in [*secrets, "203.0.113.77"]:
        assert not any(secret.encode() in content for content in files)


def test_erasure_removes_all_by_which_a_person_signed_in(store: Store, lead: str) -> None:
    settings = {"consent": "We keep what you say."}
    fill(store, 2, raters=["ann"], settings=settings)
    store.agree("c", "ann", "We keep what you say.", now=NOON)
    store.set_password_hash("ann", "argon2...")
    store.link_identity("ann", "https://id", "42")
    session = store.open_session("ann", lifetime_s=60, now=NOON)
    invite = store.create_invite(annotator="ann", now=NOON)
    store.record_sign_in_failure("name:ann", NOON)
    store.record([judgement(rationale="because")])
    store.decide_on_rater("c", "ann", weight=0.5, reason="Ann is tired", decided_by=lead)
    with store._database.writing() as connection:
        connection.execute(text('UPDATE annotators SET personal = \'{"email": "a@b"}\''))
    pseudonym = store.erase_annotator("ann")
    assert store.find_identity("https://id", "42") is None
    assert store.session(session, now=NOON) is None
    assert store.password_hash(pseudonym) is None
    with pytest.raises(InviteError, match="not known"):
        store.read_invite(invite, now=NOON)
    assert store.sign_in_failures("name:ann", since=NOON, now=NOON) == 0
    assert store.has_agreed("c", pseudonym)  # the statistic stays
    assert store.rater_weights("c") == {pseudonym: 0.5}
    assert [one.reason for one in store.rater_decisions("c")] == [""]
    assert [account.name for account in store.accounts()] == ["lea"]
    assert store.account(pseudonym).disabled
    assert store.standing_of("c", pseudonym) == "excluded"
    with store._database.reading() as connection:
        query = text("SELECT personal FROM annotators WHERE erased_at IS NOT NULL")
        assert connection.execute(query).scalars().all() == [None]


def test_erasure_closes_the_open_lease(store: Store) -> None:
    store.create_campaign("c")
    store.add_comparisons("c", [comparison("i0")])
    for name in ("ann", "bob"):
        store.add_annotator(Annotator(name=name))
    assert store.next_assignment("c", "ann", now=NOON)
    assert store.next_assignment("c", "bob", now=NOON) is None
    store.erase_annotator("ann")
    assert store.next_assignment("c", "bob", now=NOON)
    assert store.problems() == []
