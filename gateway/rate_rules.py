"""Parses the setting `rate_limits`, and derives the ids of callers from their API keys or addresses."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Literal, TypeAlias

from limits import RateLimitItem
from limits import parse as parse_window

_UNKNOWN_CALLER = "nobody"
DEFAULT_CALLER = ""
"""The entry of callers without entries of their own."""

_RATE = re.compile(r"(?P<amount>[1-9]\d*)\s*(?P<of>requests|tokens)?\s*/\s*(?P<window>[a-z0-9 ]+)")
_KEY = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate limit: a number of requests, or of tokens of prompts and answers together, in a window of time."""

    window: RateLimitItem
    unit: Literal["requests", "tokens"]


Rates: TypeAlias = Mapping[str, tuple[Rate, ...]]
"""The rates of each caller with entries of its own, by caller id, and of all others under `DEFAULT_CALLER`."""


def caller_of_key(key: str) -> str:
    """Return the caller id of an API key in settings, stores and logs: 12 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


@lru_cache(maxsize=4096)
def caller_of_address(host: str | None) -> str:
    """Return the caller id of a client without a key: its IPv4 address, or the /64 network of its IPv6 address.

    All clients without a valid address are one caller, "nobody".
    """
    try:
        address = ip_address((host or "").partition("%")[0])
    except ValueError:
        return _UNKNOWN_CALLER
    if address.version == 4:
        return str(address)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or ip_network((int(address), 64), strict=False))


def parse(entries: Iterable[str]) -> Rates:
    """Parse `60/minute`, `100000 tokens/minute`, and for one caller `CALLER=600/minute` or `CALLER=none`.

    CALLER is the id of a key (`caller_of_key`) or an address. Raises `ValueError`.
    """
    rates: dict[str, list[Rate]] = {}
    for entry in entries:
        name, separator, words = entry.rpartition("=")
        caller = _parse_caller(name.strip()) if separator else DEFAULT_CALLER
        caller_rates = rates.setdefault(caller, [])
        if words.strip() != "none":
            caller_rates.append(_parse_rate(words.strip()))
    # Shortest window first: a request that it refuses does not count in a longer one.
    return {name: tuple(sorted(limits, key=lambda rate: rate.window.get_expiry())) for name, limits in rates.items()}


def _parse_caller(name: str) -> str:
    if _KEY.fullmatch(name):
        return name
    try:
        return caller_of_address(str(ip_address(name)))
    except ValueError:
        raise ValueError(
            "name a caller by the first 12 hexadecimal digits of its key's SHA-256, or by its IP address"
        ) from None


def _parse_rate(words: str) -> Rate:
    try:
        if (match := _RATE.fullmatch(words)) is None:
            raise ValueError
        item = parse_window(f"{match['amount']}/{match['window']}")
    except ValueError:
        raise ValueError(f"write '60/minute' or '100000 tokens/minute', not '{words[:40]}'") from None
    return Rate(item, "tokens" if match["of"] == "tokens" else "requests")
