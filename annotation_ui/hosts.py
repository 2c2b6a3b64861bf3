"""Under which names this server may be spoken to, and from which pages it may be written to."""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from rlhf.errors import ConfigError

ANY_ADDRESS = ("0.0.0.0", "::")


def is_loopback(host: str) -> bool:
    """True for names and addresses that only this machine can reach."""
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ip_address(host.strip("[]")).is_loopback


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def read_public_url(url: str) -> str:
    """The address as `scheme://host[:port]`; ConfigError unless it is no more than that."""
    advice = "give https://HOST, without a path"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"--public_url {url!r}: not an address; {advice}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--public_url {url!r}: not an address; {advice}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"--public_url {url!r}: only the host can be chosen; {advice}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_default = port in (None, {"http": 80, "https": 443}[parts.scheme])
    return f"{parts.scheme}://{host}" + ("" if is_default else f":{port}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """What the server is bound to (`host`) and, behind a proxy, the address that people use.

    A page of a stranger can make its own name point here (DNS rebinding), and its requests then
    carry that name: hence only known names are served.
    """

    host: str = "127.0.0.1"
    public_url: str | None = None

    @property
    def is_https(self) -> bool:
        return self.public_url is not None and self.public_url.startswith("https:")

    @property
    def public_netloc(self) -> str | None:
        return urlsplit(self.public_url).netloc if self.public_url else None

    @property
    def public_port(self) -> int | None:
        """The port of the public address; None where there is none."""
        if self.public_url is None:
            return None
        return urlsplit(self.public_url).port or (443 if self.is_https else 80)

    def client_address(self, peer: str, forwarded_for: str) -> str:
        """Where a request comes from: `peer`, or what a proxy says, where there is one.

        A proxy adds whom it speaks for at the end; what stands before was sent by the client,
        who may write anything. Peers of the wide world are no proxies of ours.
        """
        last = forwarded_for.rpartition(",")[2].strip()
        is_proxy = self.public_url is not None and _is_address(peer) and ip_address(peer).is_private
        return last if is_proxy and _is_address(last) else peer

    def serves(self, host_header: str) -> bool:
        """Whether a request with this Host header is meant for us."""
        try:
            name = urlsplit(f"//{host_header}").hostname or ""
        except ValueError:
            return False
        if is_loopback(name) or name == self.host.lower().strip("[]"):
            return True
        if self.host in ANY_ADDRESS and _is_address(name):
            return True  # rebinding needs a name: an address cannot be made to point elsewhere
        return self.public_url is not None and name == urlsplit(self.public_url).hostname

    def is_own_origin(self, origin: str, host_header: str) -> bool:
        """Whether a page of ours, as this request's browser sees us, is at `origin`."""
        if self.public_url is not None:
            return origin == self.public_url or (
                host_header != self.public_netloc and origin == f"http://{host_header}"
            )
        return origin == f"http://{host_header}"
