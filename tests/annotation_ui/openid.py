"""A small OpenID Connect provider on a local port: it lets everybody in at once, as told.

Discovery, authorization (code, PKCE), token and keys, with id_tokens signed by a real RSA key;
each knob makes it lie in one way, as an attacker or a broken provider would.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

CLIENT_ID = "rating"
CLIENT_SECRET = "between us, and long enough for any signature"


@dataclass
class OpenIdProvider:
    """Who the next person is, and how to lie about it."""

    person: dict[str, Any] = field(default_factory=lambda: {"sub": "7", "name": "Ada Lovelace"})
    lies: dict[str, Any] = field(default_factory=dict)
    discovery_lies: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] | None = None
    refuses: bool = False
    signing_key: Any = None
    algorithm: str = "RS256"
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    token_requests: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key = RSAKey.generate_key(2048, parameters={"kid": "one"})
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.answer(self, urlsplit(self.path), {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                provider.answer(self, urlsplit(self.path), form)

            def log_message(self, *_args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        # told to stop, it looks up at once; by itself it would look twice a second
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, handler: BaseHTTPRequestHandler, url: Any, form: dict[str, str]) -> None:
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/authorize":
            handler.send_response(302)
            handler.send_header("location", self.authorize(query))
            handler.end_headers()
            return
        body = {
            "/.well-known/openid-configuration": self.discovery,
            "/token": lambda: self.token(form, handler.headers["authorization"]),
            "/keys": lambda: {"keys": [self.key.as_dict(private=False)]},
            "/userinfo": lambda: self.userinfo or {},
        }[url.path]()
        handler.send_response(400 if "error" in body else 200)
        handler.send_header("content-type", "application/json")
        handler.end_headers()
        handler.wfile.write(json.dumps(body).encode())

    def discovery(self) -> dict[str, Any]:
        known = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
        }
        if self.userinfo is not None:
            known["userinfo_endpoint"] = f"{self.issuer}/userinfo"
        return known | self.discovery_lies

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser is sent back to, with a code for what it asked."""
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        if self.refuses:
            answer = {"error": "access_denied", "state": query["state"]}
            return f"{query['redirect_uri']}?{urlencode(answer)}"
        code = secrets.token_urlsafe(8)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> dict[str, Any]:
        """An access token and an id_token, for a code that was not used before."""
        self.token_requests.append(form)
        asked = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        wanted = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if authorization != f"Basic {wanted}":
            return {"error": "invalid_client"}
        if asked is None or challenge != asked["code_challenge"]:
            return {"error": "invalid_grant"}
        if form["redirect_uri"] != asked["redirect_uri"]:
            return {"error": "invalid_grant"}
        return {"access_token": "of no use", "token_type": "Bearer", "id_token": self.sign(asked)}

    def sign(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": asked["client_id"],
            "exp": now + 300,
            "iat": now,
            "nonce": asked["nonce"],
            **self.person,
            **self.lies,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        if self.algorithm == "none":
            return unsigned(claims)
        key = self.signing_key or self.key
        if self.algorithm == "HS256":
            key = OctKey.import_key(self.key.as_pem(private=False))
        return jwt.encode({"alg": self.algorithm, "kid": "one"}, claims, key)


def unsigned(claims: dict[str, Any]) -> str:
    parts = [{"alg": "none"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return ".".join([*(part.decode() for part in encoded), ""])
