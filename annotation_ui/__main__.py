"""`python -m annotation_ui --store STORE`: rate a store's comparisons in the browser."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

from rlhf.errors import ConfigError, DataError, RlhfError, StageError, nearest_hint

if TYPE_CHECKING:
    from annotation_ui.hosts import Hosts
    from annotation_ui.oidc import Provider
    from rlhf.feedback.store import Store

EXAMPLE = "python -m annotation_ui --store runs/quickstart/feedback.db"
SECRET_VARIABLE = "RLHF_OIDC_CLIENT_SECRET"
LEAD_INVITE_S = 7 * 86400
OWN_LINK_S = 86400


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until interrupted and returns the exit code (see rlhf.errors)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        run(_parser().parse_args(words))
    except KeyboardInterrupt:
        pass
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        known = _as_rlhf_error(error)
        print(f"annotation_ui: {' '.join(str(known).split())}", file=sys.stderr)
        return known.exit_code
    return 0


def _as_rlhf_error(error: Exception) -> RlhfError:
    if isinstance(error, RlhfError):
        return error
    kind = type(error).__name__
    return StageError(f"unexpected {kind}: {error}; start it again with --debug to see where")


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are ConfigError: one line that names the nearest flag."""

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        known = self._option_string_actions
        for word in args:
            flag = word.partition("=")[0]
            if flag.startswith("--") and len(flag) > 2 and flag not in known and " " not in flag:
                raise ConfigError(f"unknown flag {flag}{nearest_hint(flag, known)}; see --help")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        allow_abbrev=False,
        prog="annotation_ui",
        description="Rate a store's comparisons in the browser, and lead those who do.",
        epilog=f"example: {EXAMPLE}",
    )
    add = parser.add_argument
    add("--store", required=True, help="SQLite file (made when new) or database URL")
    add("--campaign", help="offer only this campaign (default: all of the store)")
    add("--annotator", help="print a link that signs in this person, once (made when new)")
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    add("--port", type=int, default=7860, help="0 takes a free one (default: %(default)s)")
    add("--public_url", help="the https://HOST that people use, where a proxy stands before this")
    add("--oidc_issuer", help=f"sign in with this OpenID provider; its secret: {SECRET_VARIABLE}")
    add("--oidc_client_id", help="what the provider knows this server as")
    add("--oidc_domain", help="verified e-mail addresses of this domain may rate without invite")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run(options: argparse.Namespace) -> None:
    """Checks everything that can be wrong, prints how to get in, and serves."""
    from annotation_ui.hosts import Hosts, read_public_url
    from rlhf.feedback.store import Store

    if not 0 <= options.port <= 65535:
        raise ConfigError(f"--port {options.port}: not a port; choose 0 to 65535")
    public_url = read_public_url(options.public_url) if options.public_url else None
    hosts = Hosts(host=options.host, public_url=public_url)
    provider = provider_of(options)
    if options.annotator is not None:
        options.annotator = annotator_name(options.annotator)
    # A campaign is of a store that there is; without one, a lead starts on an empty store.
    with Store.open(options.store, create=options.campaign is None) as store:
        campaign = choose_campaign(store, options.campaign)
        if options.annotator is not None:
            register(store, options.annotator)
        _serve(store, hosts, campaign, provider, options)


def _serve(
    store: "Store",
    hosts: "Hosts",
    campaign: str | None,
    provider: "Provider | None",
    options: argparse.Namespace,
) -> None:
    # Gradio takes seconds to import: not before the arguments are known to be right.
    from annotation_ui.server import bind, build_app, serve
    from annotation_ui.site import make_site

    listener = bind(options.host, options.port)
    try:
        port = listener.getsockname()[1]
        app = build_app(make_site(store, port, hosts=hosts, campaign=campaign, provider=provider))
        address = hosts.public_url or f"http://{_reachable(options.host)}:{port}"
        print(ways_in(store, address, campaign, options.annotator))
        if warning := plain_text_warning(hosts):
            print(f"\n{warning}")
        print("\nCtrl+C stops the server; everything saved stays.", flush=True)
        serve(app, listener)
    finally:
        listener.close()


def _reachable(host: str) -> str:
    """A name for the address that was bound to, for this machine's own browser."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def ways_in(store: "Store", address: str, campaign: str | None, annotator: str | None) -> str:
    """What to tell whoever starts the server: what is served, and how to get in."""
    served = f"campaign {campaign!r}" if campaign else store.location
    lines = [f"Serving {served} at {address}"]
    if not store.campaigns():
        lines.append("It holds no campaign yet: a lead makes one in the browser.")
    if annotator is not None:
        token = store.create_invite(annotator=annotator, lifetime_s=OWN_LINK_S)
        lines += ["", f"Signs in {annotator}, once, within a day:", _link(address, token)]
    if not store.has_lead():
        _withdraw_lead_invites(store)
        token = store.create_invite(role="lead", lifetime_s=LEAD_INVITE_S)
        words = "Nobody leads yet. This link makes the first lead's account, once, within a week:"
        lines += ["", words, _link(address, token)]
    elif annotator is None:
        lines += ["", "Sign in there. Leads send invites from the lead pages."]
    return "\n".join(lines)


def _withdraw_lead_invites(store: "Store") -> None:
    """Only the link that was printed last makes the first lead: older ones lie in old logs."""
    for invite in store.invites():
        if invite.role == "lead" and invite.annotator is None and invite.created_by is None:
            store.revoke_invite(invite.id)


def _link(address: str, token: str) -> str:
    return f"\n  {address}/join?token={quote(token)}"


def plain_text_warning(hosts: "Hosts") -> str | None:
    """What to say where passwords would cross a network readable by all on the way."""
    from annotation_ui.hosts import is_loopback

    if hosts.is_https or (is_loopback(hosts.host) and hosts.public_url is None):
        return None
    return (
        "Passwords and ratings cross the network unencrypted: put a proxy with TLS in front, "
        "and give its address as --public_url https://HOST."
    )


def provider_of(options: argparse.Namespace) -> "Provider | None":
    """The OpenID provider that was asked for; ConfigError when half of it is missing."""
    from annotation_ui.oidc import Provider, check_issuer

    if options.oidc_issuer is None:
        for name in ("oidc_client_id", "oidc_domain"):
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name} needs --oidc_issuer, the provider's https:// address")
        return None
    if not options.oidc_client_id:
        raise ConfigError("--oidc_issuer needs --oidc_client_id, as the provider gave it")
    domain = options.oidc_domain
    if domain is not None and ("@" in domain or "." not in domain.strip(".")):
        raise ConfigError(f"--oidc_domain {domain!r}: give the part after the @, as example.org")
    return Provider(
        issuer=check_issuer(options.oidc_issuer),
        client_id=options.oidc_client_id,
        client_secret=os.environ.get(SECRET_VARIABLE, ""),
        domain=domain,
    )


def annotator_name(wanted: str) -> str:
    """The name as it is kept; ConfigError for one that nobody could read."""
    from annotation_ui.names import as_name, problem_with_name

    name = as_name(wanted)
    if problem := problem_with_name(name):
        raise ConfigError(f"--annotator: {problem} Give one that can be read")
    return name


def choose_campaign(store: "Store", wanted: str | None) -> str | None:
    """The only campaign to offer, or None for all; ConfigError or DataError for one that cannot.

    What only simulated raters have judged, people rate in a copy of its own: made here.
    """
    from annotation_ui.home import make_copies_for_people
    from rlhf.feedback.people import rated_by_people

    if wanted is None:
        for copy in make_copies_for_people(store):
            name = copy.settings["people_of"]
            print(f"Simulated raters judged {name!r}; people rate its items in {copy.name!r}.")
        return None
    campaign = rated_by_people(store, wanted)
    if campaign.name != wanted:
        print(f"Simulated raters judged {wanted!r}; people rate its items in {campaign.name!r}.")
    if store.progress(campaign.name).num_items == 0:
        raise DataError(f"campaign {campaign.name!r} holds no item; add some, then rate")
    return campaign.name


def register(store: "Store", annotator: str) -> None:
    """Makes the annotator known as a person; DataError when the name is a simulated rater's."""
    from rlhf.records import Annotator

    store.add_annotator(Annotator(name=annotator))


if __name__ == "__main__":
    sys.exit(main())
