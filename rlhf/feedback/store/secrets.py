"""Secrets that are handed out once: the store keeps only their hashes."""

import hashlib
import secrets


def new_secret() -> str:
    """A token of 256 random bits, fit for a link or a cookie."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """The sha256 (hex) under which a secret is kept. It is random, so it needs no salt."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
