"""The rates that callers may ask at, and what stands for a caller: the setting `rate_limits`, read."""

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
"""Stands for callers that are not named."""

_RATE = re.compile(r"(?P<amount>[1-9]\d*)\s*(?P<of>requests|tokens)?\s*/\s*(?P<window>[a-z0-9 ]+)")
_KEY = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests, or tokens of prompts and answers together, within a window."""

    window: RateLimitItem
    unit: Literal["requests", "tokens"]


Rates: TypeAlias = Mapping[str, tuple[Rate, ...]]
"""The rates of each caller that is named, and those of all others."""


def caller_of_key(key: str) -> str:
    """Return what stands for an API key in settings, stores and logs: 12 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


@lru_cache(maxsize=4096)
def caller_of_address(host: str | None) -> str:
    """Return what stands for a client without a key: its address, or of IPv6 the 64 bits that networks are given.

    Where there is none, or a text that is none, it is "nobody": the same caller, whatever the text.
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
    """Read `60/minute`, `100000 tokens/minute`, and for one caller `CALLER=600/minute` or `CALLER=none`.

    A caller is named by its key (`of_key`) or by its address. Raises `ValueError`.
    """
    rates: dict[str, list[Rate]] = {}
    for entry in entries:
        name, named, words = entry.rpartition("=")
        caller = _caller(name.strip()) if named else DEFAULT_CALLER
        of_caller = rates.setdefault(caller, [])
        if words.strip() != "none":
            of_caller.append(_rate(words.strip()))
    # What a short window refuses does not count in a longer one.
    return {name: tuple(sorted(some, key=lambda rate: rate.window.get_expiry())) for name, some in rates.items()}


def _caller(name: str) -> str:
    if _KEY.fullmatch(name):
        return name
    try:
        return caller_of_address(str(ip_address(name)))
    except ValueError:
        raise ValueError("a caller is named by 12 hexadecimal digits of its key's SHA-256, or by its address") from None


def _rate(words: str) -> Rate:
    try:
        if (match := _RATE.fullmatch(words)) is None:
            raise ValueError
        item = parse_window(f"{match['amount']}/{match['window']}")
    except ValueError:
        raise ValueError(f"write '60/minute' or '100000 tokens/minute', not '{words[:40]}'") from None
    return Rate(item, "tokens" if match["of"] == "tokens" else "requests")
