"""An OpenID Connect provider, asked who somebody is (Authlib: code flow, PKCE, signed id_token)."""

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from annotation_ui.hosts import is_loopback
from rlhf.errors import ConfigError, DataError

CLOCK_LEEWAY_S = 60
TIMEOUT_S = 10.0
ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
"""Signatures by the provider's public keys; never "none", never one by a shared secret."""


class ProviderError(DataError):
    """The provider could not be asked, or what it said is not to be believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Somebody as a provider knows them: `subject` never changes, the rest may.

    `email` is None unless the provider has verified it.
    """

    issuer: str
    subject: str
    name: str
    email: str | None


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Where to ask, and as whom. `domain` admits its verified e-mail addresses as raters."""

    issuer: str
    client_id: str
    client_secret: str = ""
    domain: str | None = None

    @property
    def name(self) -> str:
        """For the button: the host, since providers give themselves no name."""
        return urlsplit(self.issuer).hostname or self.issuer

    @cached_property
    def signing_key(self) -> bytes:
        """For the cookie of a sign-in under way: the same on all servers with the same secret."""
        if not self.client_secret:
            return secrets.token_bytes(32)
        return hmac.digest(self.client_secret.encode(), b"sign-in under way", hashlib.sha256)

    async def begin(self, redirect_uri: str) -> tuple[str, dict[str, str]]:
        """The address to send the browser to, and the secrets to know it again by."""
        with _said_plainly(self.name):
            await self._checked_metadata()
            started = await self._client.create_authorization_url(redirect_uri)
        kept = {key: started[key] for key in ("state", "nonce", "code_verifier")}
        return started["url"], {**kept, "redirect_uri": redirect_uri}

    async def finish(self, kept: dict[str, str], code: str) -> Identity:
        """Who came back with `code`; ProviderError unless the id_token is ours, new and signed."""
        with _said_plainly(self.name):
            await self._checked_metadata()
            token = await self._client.fetch_access_token(
                redirect_uri=kept["redirect_uri"], code=code, code_verifier=kept["code_verifier"]
            )
            claims = await self._client.parse_id_token(
                token,
                nonce=kept["nonce"],
                claims_options={
                    "iss": {"essential": True, "value": self.issuer},
                    "aud": {"essential": True, "value": self.client_id},
                    "exp": {"essential": True},
                    "nonce": {"essential": True, "value": kept["nonce"]},
                },
                leeway=CLOCK_LEEWAY_S,
            )
            if claims is None:
                raise ProviderError(f"{self.name} sent no id_token")
            more = await self._userinfo(token, claims) if "email" not in claims else {}
        return self._identity({**more, **claims})

    async def _userinfo(self, token: dict[str, Any], claims: dict[str, Any]) -> dict[str, Any]:
        """What the provider tells on request, where the id_token itself holds no address."""
        metadata = await self._client.load_server_metadata()
        if self.domain is None or "userinfo_endpoint" not in metadata:
            return {}
        more: dict[str, Any] = await self._client.userinfo(token=token)
        if more.get("sub") != claims["sub"]:
            raise ProviderError(f"{self.name} speaks of two people at once")
        return more

    def _identity(self, claims: dict[str, Any]) -> Identity:
        email = claims.get("email") if claims.get("email_verified") is True else None
        known_as = (claims.get(key) for key in ("preferred_username", "name", "email"))
        name = next((str(value) for value in known_as if value), "rater")
        return Identity(
            issuer=self.issuer, subject=str(claims["sub"]), name=name.partition("@")[0], email=email
        )

    async def _checked_metadata(self) -> None:
        """Discovery, held to name the issuer that was asked, and to proper signatures."""
        metadata = await self._client.load_server_metadata()
        if metadata.get("issuer") != self.issuer:
            raise ProviderError(f"{self.name} calls itself {metadata.get('issuer')!r}")
        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        metadata["id_token_signing_alg_values_supported"] = [
            name for name in offered if name in ALGORITHMS
        ]

    @cached_property
    def _client(self) -> Any:
        from authlib.integrations.starlette_client import OAuth  # type: ignore[import-untyped]

        return OAuth().register(
            "provider",
            client_id=self.client_id,
            client_secret=self.client_secret or None,
            server_metadata_url=f"{self.issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": "openid profile email",
                "code_challenge_method": "S256",
                "timeout": TIMEOUT_S,
            },
        )


@contextmanager
def _said_plainly(name: str) -> Iterator[None]:
    """Turns whatever the libraries raise into one line: a provider's answer is only data."""
    try:
        yield
    except ProviderError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ProviderError(f"{name}: {reason}") from error


def check_issuer(issuer: str) -> str:
    """The issuer as given; ConfigError unless it can be asked safely."""
    parts = urlsplit(issuer)
    is_local = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if (
        parts.query
        or parts.fragment
        or not parts.hostname
        or not (parts.scheme == "https" or is_local)
    ):
        raise ConfigError(f"--oidc_issuer {issuer!r}: give the provider's https:// address")
    return issuer
