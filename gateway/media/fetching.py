"""URLs of callers, fetched without trust in the callers, the names, the servers or what they send."""

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from gateway.media import exchange
from gateway.media.addresses import is_public
from gateway.media.exchange import Take
from gateway.media.unusable import Unusable
from gateway.places import Places

if TYPE_CHECKING:
    from yarl import URL

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, or raises `OSError`."""

_REDIRECTS = 3
LONGEST_URL = 8192
"""Characters."""
_MOST_ADDRESSES = 64
"""Of a host, that are looked at."""
_PATIENCE = 0.25
"""Seconds after which the next address of a host is tried beside the one before (RFC 8305)."""
_SCHEMES = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a server sent. `declared` is the media type it claims, `name` the end of the path; either may be empty."""

    data: bytes
    declared: str
    name: str


class Resolver:
    """Asks the system for addresses of hosts, in threads that nothing else waits for.

    It may take far longer than a caller waits, and cannot be stopped: so a caller has its share of the places until the
    answer is there, whoever still waits for it.
    """

    def __init__(self, places: int) -> None:
        self._places = Places(places)

    async def resolve(self, host: str, port: int, *, caller: str) -> Sequence[str]:
        """Return the addresses of a host, or of an address of IPv4 in any of its spellings. Raises `OSError`."""
        await self._places.take(caller, seconds=3600)  # who waits has less time than that
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Sequence[str]] = loop.create_future()

        def tell(addresses: Sequence[str] | None) -> None:
            self._places.release(caller)
            if not found.done():
                if addresses is None:
                    found.set_exception(OSError("not found"))
                else:
                    found.set_result(addresses)

        def look_up() -> None:
            addresses = None
            with suppress(OSError, UnicodeError):
                addresses = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, addresses)

        try:
            threading.Thread(target=look_up, name="resolver", daemon=True).start()
        except RuntimeError as error:
            self._places.release(caller)
            raise OSError(str(error)) from None
        return await found


class Fetcher:
    """Fetches what callers name. Environment proxies, cookies and credentials play no part in it."""

    def __init__(
        self,
        *,
        timeout: float,
        max_bytes: int,
        allow_private: bool,
        allowed_hosts: Collection[str],
        lookups: int,
        resolve: Resolve | None = None,
    ) -> None:
        """`timeout` is in seconds, from the first look-up to the last byte. `allowed_hosts` may be private.

        `lookups` hosts are looked up at a time. `resolve` takes the place of the system's resolver.
        """
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._allow_private = allow_private
        self._allowed_hosts = frozenset(host.strip("[]").rstrip(".").lower() for host in allowed_hosts)
        self._resolver = Resolver(lookups)
        self._resolve = resolve
        self._tls: ssl.SSLContext | None = None

    async def fetch(self, url: str, take: Take, *, caller: str) -> Fetched:
        """Return what is at `url`, of which `take` is told piece by piece. Raises `Unusable`, and what `take` does."""
        # With what it needs 30 ms: only where it is needed.
        from yarl import URL

        location = url
        try:
            async with asyncio.timeout(self._timeout):
                for _ in range(_REDIRECTS + 1):
                    if len(location) > LONGEST_URL:
                        raise Unusable(f"the URL is longer than {LONGEST_URL} characters")
                    where = URL(location)
                    answer = await self._ask(where, take, caller)
                    if answer.status in (301, 302, 303, 307, 308) and answer.location is not None:
                        if len(answer.location) > LONGEST_URL:
                            raise Unusable(f"its URL redirects to one longer than {LONGEST_URL} characters")
                        location = str(where.join(URL(answer.location)))
                        continue
                    if answer.status != 200:
                        raise Unusable(f"its URL answers with the status {answer.status} instead of 200")
                    return Fetched(data=answer.data, declared=answer.declared, name=where.name)
        except TimeoutError:
            raise Unusable(f"its URL could not be fetched within {self._timeout:g} seconds") from None
        except ValueError:
            raise Unusable("it is not a valid URL") from None
        raise Unusable(f"its URL redirects more than {_REDIRECTS} times")

    async def _ask(self, url: "URL", take: Take, caller: str) -> exchange.Answer:
        """Ask one server, over a connection to an address that was looked at, and that nothing outlives."""
        addresses = await self._addresses(url, caller)
        assert url.port is not None  # both schemes have one by default
        from aiohappyeyeballs import start_connection

        infos = [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", there)
            for address in addresses
            for there in [(address, url.port, 0, 0) if ":" in address else (address, url.port)]
        ]
        try:
            way = await start_connection(infos, happy_eyeballs_delay=_PATIENCE, interleave=1)
        except OSError:
            raise Unusable("its URL could not be fetched: its host does not take the connection") from None
        if url.scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()
        tls = self._tls if url.scheme == "https" else None
        return await exchange.get(way, url, tls=tls, max_bytes=self._max_bytes, take=take)

    async def _addresses(self, url: "URL", caller: str) -> list[str]:
        """Return the addresses of a URL's host, all of which it may have. Raises `Unusable`."""
        if url.scheme not in _SCHEMES or not url.raw_host:
            raise Unusable("its URL must begin with http:// or https:// and name a host")
        if url.user is not None or url.password is not None:
            raise Unusable("its URL must not hold a user name or a password")
        host, port = url.raw_host, url.port or _SCHEMES[url.scheme]
        shown = (url.host or "")[:200]
        if _is_numeric(host):
            raise Unusable("it is not a valid URL")
        try:
            if self._resolve:
                found = await self._resolve(host, port)
            else:
                found = await self._resolver.resolve(host, port, caller=caller)
        except OSError:
            raise Unusable(f"the host '{shown}' of its URL is not known") from None
        addresses = list(dict.fromkeys(found))[:_MOST_ADDRESSES]
        may_be_private = self._allow_private or host.rstrip(".").lower() in self._allowed_hosts
        if not addresses or not (may_be_private or all(is_public(address) for address in addresses)):
            raise Unusable(f"the host '{shown}' of its URL is not on the public Internet")
        return addresses


def _is_numeric(host: str) -> bool:
    """Whether a host is an IPv4 address in a spelling that not everybody reads as the same: "127.1", "0x7f000001"."""
    last = host.rstrip(".").rpartition(".")[2]
    if not (last.isdigit() or last[:2].lower() == "0x"):
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False
