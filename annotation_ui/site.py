"""What one server is made of: handed to everything that adds routes."""

from dataclasses import dataclass, field

from annotation_ui.hosts import Hosts
from annotation_ui.oidc import Provider
from annotation_ui.passwords import Passwords
from annotation_ui.session import Sessions
from rlhf.feedback.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A store, its sessions, and under which names it is served.

    `campaign` is the only one that the home page offers, where one was chosen at the start.
    """

    store: Store
    sessions: Sessions
    hosts: Hosts = field(default_factory=Hosts)
    campaign: str | None = None
    passwords: Passwords = field(default_factory=Passwords)
    provider: Provider | None = None


def make_site(
    store: Store,
    port: int,
    *,
    hosts: Hosts | None = None,
    campaign: str | None = None,
    provider: Provider | None = None,
) -> Site:
    """The site of a server on `port`.

    Browsers share cookies among the ports of a host, and two servers must not sign each other's
    raters out: the cookie is named after the port. Servers behind one public address share it.
    """
    hosts = hosts or Hosts()
    name = f"rlhf_session_{hosts.public_port or port}"
    sessions = Sessions(store, name, secure=hosts.is_https)
    return Site(store=store, sessions=sessions, hosts=hosts, campaign=campaign, provider=provider)
