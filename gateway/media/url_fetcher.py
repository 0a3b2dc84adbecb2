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

from gateway.fair_sharing import FairSemaphore
from gateway.media import http_client
from gateway.media.http_client import ByteCounter
from gateway.media.invalid_media import InvalidMedia
from gateway.media.ssrf import is_public_address

if TYPE_CHECKING:
    from yarl import URL

ResolveHost: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, or raises `OSError`."""

_MAX_REDIRECTS = 3
MAX_URL_LENGTH = 8192
"""Characters."""
_MAX_ADDRESSES = 64
"""Of a host, that are looked at."""
_HAPPY_EYEBALLS_DELAY_SECONDS = 0.25
"""Seconds after which the next address of a host is tried beside the one before (RFC 8305)."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedFile:
    """What a server sent. `declared` is the media type it claims, `name` the end of the path; either may be empty."""

    data: bytes
    declared_type: str
    name: str


class HostResolver:
    """Asks the system for addresses of hosts, in threads that nothing else waits for.

    It may take far longer than a caller waits, and cannot be stopped: so a caller has its share of the places until the
    answer is there, whoever still waits for it.
    """

    def __init__(self, places: int) -> None:
        self._places = FairSemaphore(places)

    async def resolve(self, host: str, port: int, *, caller: str) -> Sequence[str]:
        """Return the addresses of a host, or of an address of IPv4 in any of its spellings. Raises `OSError`."""
        await self._places.acquire(caller, seconds=3600)  # who waits has less time than that
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


class UrlFetcher:
    """Fetches what callers name. Environment proxies, cookies and credentials play no part in it."""

    def __init__(
        self,
        *,
        timeout: float,
        max_bytes: int,
        allow_private: bool,
        allowed_hosts: Collection[str],
        lookups: int,
        resolve: ResolveHost | None = None,
    ) -> None:
        """`timeout` is in seconds, from the first look-up to the last byte. `allowed_hosts` may be private.

        `lookups` hosts are looked up at a time. `resolve` takes the place of the system's resolver.
        """
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._allow_private = allow_private
        self._allowed_hosts = frozenset(host.strip("[]").rstrip(".").lower() for host in allowed_hosts)
        self._resolver = HostResolver(lookups)
        self._resolve = resolve
        self._tls: ssl.SSLContext | None = None

    async def fetch(self, url: str, take: ByteCounter, *, caller: str) -> FetchedFile:
        """Return what is at `url`, of which `take` is told piece by piece. Raises `Unusable`, and what `take` does."""
        # With what it needs 30 ms: only where it is needed.
        from yarl import URL

        location = url
        try:
            async with asyncio.timeout(self._timeout):
                for _ in range(_MAX_REDIRECTS + 1):
                    if len(location) > MAX_URL_LENGTH:
                        raise InvalidMedia(f"the URL is longer than {MAX_URL_LENGTH} characters")
                    where = URL(location)
                    answer = await self._get(where, take, caller)
                    if answer.status in (301, 302, 303, 307, 308) and answer.location is not None:
                        if len(answer.location) > MAX_URL_LENGTH:
                            raise InvalidMedia(f"its URL redirects to one longer than {MAX_URL_LENGTH} characters")
                        location = str(where.join(URL(answer.location)))
                        continue
                    if answer.status != 200:
                        raise InvalidMedia(f"its URL answers with the status {answer.status} instead of 200")
                    return FetchedFile(data=answer.data, declared_type=answer.declared_type, name=where.name)
        except TimeoutError:
            raise InvalidMedia(f"its URL could not be fetched within {self._timeout:g} seconds") from None
        except ValueError:
            raise InvalidMedia("it is not a valid URL") from None
        raise InvalidMedia(f"its URL redirects more than {_MAX_REDIRECTS} times")

    async def _get(self, url: "URL", take: ByteCounter, caller: str) -> http_client.HttpResponse:
        """Ask one server, over a connection to an address that was looked at, and that nothing outlives."""
        addresses = await self._resolve_allowed(url, caller)
        assert url.port is not None  # both schemes have one by default
        from aiohappyeyeballs import start_connection

        infos = [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", there)
            for address in addresses
            for there in [(address, url.port, 0, 0) if ":" in address else (address, url.port)]
        ]
        try:
            way = await start_connection(infos, happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY_SECONDS, interleave=1)
        except OSError:
            raise InvalidMedia("its URL could not be fetched: its host does not take the connection") from None
        if url.scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()
        tls = self._tls if url.scheme == "https" else None
        return await http_client.get(way, url, tls=tls, max_bytes=self._max_bytes, take=take)

    async def _resolve_allowed(self, url: "URL", caller: str) -> list[str]:
        """Return the addresses of a URL's host, all of which it may have. Raises `Unusable`."""
        if url.scheme not in _DEFAULT_PORTS or not url.raw_host:
            raise InvalidMedia("its URL must begin with http:// or https:// and name a host")
        if url.user is not None or url.password is not None:
            raise InvalidMedia("its URL must not hold a user name or a password")
        host, port = url.raw_host, url.port or _DEFAULT_PORTS[url.scheme]
        shown = (url.host or "")[:200]
        if _is_legacy_ipv4(host):
            raise InvalidMedia("it is not a valid URL")
        try:
            if self._resolve:
                found = await self._resolve(host, port)
            else:
                found = await self._resolver.resolve(host, port, caller=caller)
        except OSError:
            raise InvalidMedia(f"the host '{shown}' of its URL is not known") from None
        addresses = list(dict.fromkeys(found))[:_MAX_ADDRESSES]
        may_be_private = self._allow_private or host.rstrip(".").lower() in self._allowed_hosts
        if not addresses or not (may_be_private or all(is_public_address(address) for address in addresses)):
            raise InvalidMedia(f"the host '{shown}' of its URL is not on the public Internet")
        return addresses


def _is_legacy_ipv4(host: str) -> bool:
    """Whether a host is an IPv4 address in a spelling that not everybody reads as the same: "127.1", "0x7f000001"."""
    last = host.rstrip(".").rpartition(".")[2]
    if not (last.isdigit() or last[:2].lower() == "0x"):
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False
