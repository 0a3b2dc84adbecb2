"""API keys: which key a request carries, and who its caller is."""

import hmac
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TypeAlias

from fastapi import Request
from pydantic import SecretStr

from gateway import rate_rules
from gateway.errors import Unauthorized
from gateway.settings import Settings

Authorize: TypeAlias = Callable[[Request], str]
"""Returns the id of a request's caller for rate limits and fair sharing, or raises a `GatewayError`."""

AUTHORIZATION = "Authorization"
"""The header of bearer keys."""


def authorize(request: Request) -> str:
    """Return the id of the caller by the setting `api_keys`. Raises `Unauthorized`."""
    settings: Settings = request.app.state.settings
    return authenticate(request, settings.api_keys)


def authenticate(request: Request, keys: Collection[SecretStr], header: str = AUTHORIZATION) -> str:
    """Return the id of the caller: of its key, or of its address where `keys` is empty.

    Without configured keys any key would be accepted, and a caller could pose as a new one with every request.
    `header` is where the dialect's callers send their key. Raises `Unauthorized` where the request carries no key or
    one that is not among `keys`.
    """
    if not keys:
        return rate_rules.caller_of_address(request.client.host if request.client else None)
    return rate_rules.caller_of_key(match_api_key(request, keys, header))


def match_api_key(request: Request, keys: Collection[SecretStr], header: str = AUTHORIZATION) -> str:
    """Return which of `keys` a request carries in `header`. Raises `Unauthorized`."""
    given = _read_key(request, header)
    found = None
    for key in keys:
        # Compare with every key, each in constant time: response time must not tell anything about the keys.
        text = key.get_secret_value()
        same = [hmac.compare_digest(given, encoded) for encoded in _key_encodings(text)]
        found = text if any(same) else found
    if found is None:
        raise Unauthorized(f"The key of the header '{header}' is not known here.")
    return found


def _read_key(request: Request, header: str) -> bytes:
    """Return the key of a header: what follows `Bearer` in `Authorization`, and the whole value of any other header."""
    name = header.lower().encode()
    key = next((value for found, value in request.headers.raw if found == name), b"")
    if header == AUTHORIZATION:
        scheme, _, key = key.partition(b" ")
        if scheme.lower() != b"bearer":
            key = b""
    key = key.strip(b" \t")
    if not key:
        example = "Bearer YOUR_KEY" if header == AUTHORIZATION else "YOUR_KEY"
        raise Unauthorized(f"This service asks for a key: send the header '{header}: {example}'.")
    return key


def _key_encodings(key: str) -> list[bytes]:
    """Return the bytes that clients send for a key: beyond ASCII most encode headers as UTF-8, and some as Latin-1."""
    encodings = [key.encode()]
    if not key.isascii():
        with suppress(UnicodeEncodeError):
            encodings.append(key.encode("latin-1"))
    return encodings
