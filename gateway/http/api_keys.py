"""Authentication by API keys."""

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
    """Return the id of the caller, with the keys of the setting `api_keys`. Raises `Unauthorized`."""
    settings: Settings = request.app.state.settings
    return authenticate(request, settings.api_keys)


def authenticate(request: Request, keys: Collection[SecretStr], header: str = AUTHORIZATION) -> str:
    """Return the id of the caller, derived from its key, or from its IP address if `keys` is empty.

    If `keys` is empty, a key in the request is ignored: a caller could send a new one with every request to evade
    limits. `header` is the header that carries the key. Raises `Unauthorized` if the request has no key, or one that is
    not among `keys`.
    """
    if not keys:
        return rate_rules.caller_of_address(request.client.host if request.client else None)
    return rate_rules.caller_of_key(match_api_key(request, keys, header))


def match_api_key(request: Request, keys: Collection[SecretStr], header: str = AUTHORIZATION) -> str:
    """Return the one of `keys` that the request has in `header`. Raises `Unauthorized` if it has none of them."""
    sent_key = _read_key(request, header)
    matched_key = None
    for key in keys:
        # Compare with every key, each in constant time: the response time must not reveal anything about the keys.
        text = key.get_secret_value()
        matches = [hmac.compare_digest(sent_key, encoded) for encoded in _key_encodings(text)]
        matched_key = text if any(matches) else matched_key
    if matched_key is None:
        raise Unauthorized(f"The API key in the header '{header}' is invalid.")
    return matched_key


def _read_key(request: Request, header: str) -> bytes:
    """Return the key in a header: the part after `Bearer` of `Authorization`, or the whole value of any other header.

    Raises `Unauthorized` if the request has none.
    """
    name = header.lower().encode()
    key = next((value for found, value in request.headers.raw if found == name), b"")
    if header == AUTHORIZATION:
        scheme, _, key = key.partition(b" ")
        if scheme.lower() != b"bearer":
            key = b""
    key = key.strip(b" \t")
    if not key:
        example = "Bearer YOUR_KEY" if header == AUTHORIZATION else "YOUR_KEY"
        raise Unauthorized(f"An API key is required: send the header '{header}: {example}'.")
    return key


def _key_encodings(key: str) -> list[bytes]:
    """Return the bytes that clients may send for a key: most encode headers as UTF-8, some as Latin-1."""
    encodings = [key.encode()]
    if not key.isascii():
        with suppress(UnicodeEncodeError):
            encodings.append(key.encode("latin-1"))
    return encodings
