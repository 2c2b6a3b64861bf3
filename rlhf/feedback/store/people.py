"""The store's methods for accounts: who may sign in, how, and who is signed in."""

from datetime import datetime

from rlhf.feedback.store import accounts, invites, sessions
from rlhf.feedback.store.opened import OpenedStore, moment
from rlhf.feedback.store.records import Account, Invite, OpenInvite, Role

INVITE_LIFETIME_S = 7 * 86_400.0


class PeopleStore(OpenedStore):
    """Accounts, invites, identities and sessions. Of every secret only a hash is kept."""

    def accounts(self) -> list[Account]:
        """All accounts but the erased ones, oldest first."""
        with self._database.reading() as connection:
            return accounts.every(connection)

    def account(self, name: str) -> Account:
        """The account of that name; ConfigError when there is none."""
        with self._database.reading() as connection:
            return accounts.get(connection, name)

    def has_lead(self) -> bool:
        """Whether there is a lead who is not disabled."""
        with self._database.reading() as connection:
            return accounts.has_lead(connection)

    def set_role(self, name: str, role: Role) -> None:
        """Make somebody a rater or a lead; DataError for the last lead."""
        with self._database.writing() as connection:
            accounts.set_role(connection, name, role)

    def set_disabled(self, name: str, disabled: bool) -> None:
        """Shut an account out and end its sessions, or let it in; DataError for the last lead."""
        with self._database.writing() as connection:
            accounts.set_disabled(connection, name, disabled=disabled, now=moment(None))

    def set_password_hash(self, name: str, hashed: str | None) -> None:
        """Give an account a password, by its argon2 hash, or take it away with None."""
        with self._database.writing() as connection:
            accounts.set_password_hash(connection, name, hashed)

    def password_hash(self, name: str) -> str | None:
        """The hash of an account's password; None without a password or an account."""
        with self._database.reading() as connection:
            return accounts.password_hash(connection, name)

    def link_identity(self, name: str, issuer: str, subject: str) -> None:
        """Let an OpenID Connect identity sign in as `name`; DataError when it is another's."""
        with self._database.writing() as connection:
            accounts.link_identity(connection, name, issuer, subject, moment(None))

    def find_identity(self, issuer: str, subject: str) -> Account | None:
        """The account an identity signs in as, which may be disabled; None when unknown."""
        with self._database.reading() as connection:
            return accounts.find_identity(connection, issuer, subject)

    def with_identity(self) -> set[str]:
        """The names of the accounts that an OpenID Connect identity signs in as."""
        with self._database.reading() as connection:
            return accounts.with_identity(connection)

    def create_invite(
        self,
        *,
        role: Role = "rater",
        annotator: str | None = None,
        created_by: str | None = None,
        lifetime_s: float = INVITE_LIFETIME_S,
        now: datetime | None = None,
    ) -> str:
        """The secret of a new single-use invite; with `annotator` it signs in that account."""
        with self._database.writing() as connection:
            return invites.create(
                connection,
                role=role,
                annotator=annotator,
                created_by=created_by,
                lifetime_s=lifetime_s,
                now=moment(now),
            )

    def read_invite(self, token: str, *, now: datetime | None = None) -> Invite:
        """What an invite gives; InviteError, in words for a person, when it gives nothing."""
        with self._database.reading() as connection:
            return invites.read(connection, token, moment(now))

    def redeem_invite(
        self, token: str, *, name: str | None = None, now: datetime | None = None
    ) -> Account:
        """Use an invite up, exactly once; the account it signs in, made where it is new.

        InviteError when it cannot be used, or the name of a new account is taken; nothing has
        changed then.
        """
        with self._database.writing() as connection:
            return invites.redeem(connection, token, name=name, now=moment(now))

    def invites(self, *, now: datetime | None = None) -> list[OpenInvite]:
        """The invites that can still be used, without their secrets."""
        with self._database.reading() as connection:
            return invites.unused(connection, moment(now))

    def revoke_invite(self, invite_id: int) -> None:
        """Make an invite useless; ConfigError when there is none of that id."""
        with self._database.writing() as connection:
            invites.revoke(connection, invite_id, moment(None))

    def open_session(self, name: str, *, lifetime_s: float, now: datetime | None = None) -> str:
        """The secret token of a new session; DataError for an account that cannot sign in."""
        with self._database.writing() as connection:
            return sessions.open_session(connection, name, lifetime_s=lifetime_s, now=moment(now))

    def session(self, token: str, *, now: datetime | None = None) -> Account | None:
        """Whose session a token is; None when it has ended or its account is disabled."""
        with self._database.reading() as connection:
            return sessions.session(connection, token, moment(now))

    def extend_session(self, token: str, *, lifetime_s: float, now: datetime | None = None) -> None:
        """Let a session that still runs last `lifetime_s` from now."""
        with self._database.writing() as connection:
            sessions.extend(connection, token, lifetime_s=lifetime_s, now=moment(now))

    def end_session(self, token: str) -> None:
        """End one session."""
        with self._database.writing() as connection:
            sessions.end(connection, token)

    def end_sessions(self, name: str) -> None:
        """End every session of an account."""
        with self._database.writing() as connection:
            sessions.end_all(connection, name)

    def record_sign_in_failure(self, key: str, now: datetime | None = None) -> None:
        """Note a failed sign-in for a key such as "name:ada" or "address:1.2.3.4"."""
        with self._database.writing() as connection:
            sessions.record_failure(connection, key, moment(now))

    def sign_in_failures(self, key: str, *, since: datetime, now: datetime | None = None) -> int:
        """How many sign-ins have failed for a key since then; after a day they are forgotten."""
        with self._database.reading() as connection:
            return sessions.num_failures(connection, key, since, moment(now))

    def clear_sign_in_failures(self, key: str) -> None:
        """Forget the failures of a key."""
        with self._database.writing() as connection:
            sessions.clear_failures(connection, key)
