"""Fetches URLs of callers, and posts to them. Callers, host names, servers and their responses are not trusted."""

import asyncio
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from gateway.fair_sharing import FairSemaphore
from gateway.media import http_client
from gateway.media.http_client import ByteCounter, Write
from gateway.media.invalid_media import InvalidMedia
from gateway.media.ssrf import is_public_address

if TYPE_CHECKING:
    from yarl import URL

ResolveHost: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, or raises `OSError`."""

_MAX_REDIRECTS = 3
MAX_URL_LENGTH = 8192
"""Most characters of a URL."""
_MAX_ADDRESSES = 64
"""Most addresses of a host that are used."""
_HAPPY_EYEBALLS_DELAY_SECONDS = 0.25
"""Seconds after which the next address of a host is tried in parallel (RFC 8305)."""
_HOST = re.compile(r"(?=.{1,254}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
"""A name of a host, with labels and a length that names can have (RFC 1035, section 2.3.4), or an IPv4 address."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedFile:
    """A fetched file. `declared_type` is the media type that the server claims, `name` the end of the path.

    Either may be empty.
    """

    data: bytes
    declared_type: str
    name: str


class HostResolver:
    """Resolves hosts with the system's resolver, in threads of its own.

    A lookup may take far longer than a caller waits, and cannot be cancelled. It holds a slot of its caller until it
    returns, even if its request has ended.
    """

    def __init__(self, num_slots: int) -> None:
        self._slots = FairSemaphore(num_slots)

    async def resolve(self, host: str, port: int, *, caller: str) -> Sequence[str]:
        """Return the addresses of a host, which may itself be an IPv4 address in any spelling. Raises `OSError`."""
        await self._slots.acquire(caller, seconds=3600)  # longer than any caller waits
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Sequence[str]] = loop.create_future()

        def set_result(addresses: Sequence[str] | None) -> None:
            self._slots.release(caller)
            if not found.done():
                if addresses is None:
                    found.set_exception(OSError("not found"))
                else:
                    found.set_result(addresses)

        def look_up() -> None:
            addresses = None
            with suppress(OSError, UnicodeError):
                addresses = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
            with suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(set_result, addresses)

        try:
            threading.Thread(target=look_up, name="resolver", daemon=True).start()
        except RuntimeError as error:
            self._slots.release(caller)
            raise OSError(str(error)) from None
        return await found


class UrlFetcher:
    """Sends requests to URLs of callers. It uses no proxies of the environment, no cookies and no credentials."""

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
        """`timeout` is in seconds, from the first lookup to the last byte. `allowed_hosts` may be private.

        `lookups` is the number of concurrent lookups. `resolve` replaces the system's resolver.
        """
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._allow_private = allow_private
        self._allowed_hosts = frozenset(host.strip("[]").rstrip(".").lower() for host in allowed_hosts)
        self._resolver = HostResolver(lookups)
        self._resolve = resolve
        self._tls: ssl.SSLContext | None = None

    async def fetch(self, url: str, count_bytes: ByteCounter, *, caller: str) -> FetchedFile:
        """Return the file at `url`. `count_bytes` is called with the number of bytes of each piece.

        Raises `InvalidMedia`, and the exceptions of `count_bytes`.
        """
        data = bytearray()

        async def write(piece: bytes) -> None:
            nonlocal data
            data += piece
            count_bytes(len(piece))

        fetched = await self.fetch_to(url, write, caller=caller, max_bytes=self._max_bytes, timeout=self._timeout)
        return replace(fetched, data=bytes(data))

    async def fetch_to(self, url: str, write: Write, *, caller: str, max_bytes: int, timeout: float) -> FetchedFile:
        """Fetch the file at `url`, and call `write` with each piece. Returns the file without its data.

        `timeout` is in seconds, from the first lookup to the last byte. Raises `InvalidMedia`, and the exceptions of
        `write`.
        """
        # Imported here, because it takes 30 ms.
        from yarl import URL

        location = url
        try:
            async with asyncio.timeout(timeout):
                for _ in range(_MAX_REDIRECTS + 1):
                    if len(location) > MAX_URL_LENGTH:
                        raise InvalidMedia(f"the URL is longer than {MAX_URL_LENGTH} characters")
                    current_url = URL(location)
                    response = await self._get(current_url, write, caller, max_bytes)
                    if response.status in (301, 302, 303, 307, 308) and response.location is not None:
                        if len(response.location) > MAX_URL_LENGTH:
                            raise InvalidMedia(f"its URL redirects to a URL longer than {MAX_URL_LENGTH} characters")
                        location = str(current_url.join(URL(response.location)))
                        continue
                    if response.status != 200:
                        raise InvalidMedia(f"its URL returned the HTTP status {response.status} instead of 200")
                    return FetchedFile(data=b"", declared_type=response.declared_type, name=current_url.name)
        except TimeoutError:
            raise InvalidMedia(f"its URL could not be fetched within {timeout:g} seconds") from None
        except ValueError:
            raise InvalidMedia("it is not a valid URL") from None
        raise InvalidMedia(f"its URL redirects more than {_MAX_REDIRECTS} times")

    def check(self, url: str) -> None:
        """Raise `InvalidMedia` if requests to `url` always fail: it is malformed, or its host a private address.

        Resolves no name.
        """
        from yarl import URL

        if len(url) > MAX_URL_LENGTH:
            raise InvalidMedia(f"the URL is longer than {MAX_URL_LENGTH} characters")
        try:
            host, _, shown = _split(URL(url))
        except ValueError:
            raise InvalidMedia("it is not a valid URL") from None
        with suppress(ValueError):
            ipaddress.ip_address(host)
            self._check_addresses([host], host, shown)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, *, caller: str) -> int:
        """Send a POST request, and return the status of the response. Follows no redirects. Raises `InvalidMedia`."""
        from yarl import URL

        try:
            async with asyncio.timeout(self._timeout):
                target = URL(url)
                connection, tls = await self._connect(target, caller)
                return await http_client.post(connection, target, tls=tls, headers=headers, body=body)
        except TimeoutError:
            raise InvalidMedia(f"its host did not respond within {self._timeout:g} seconds") from None
        except ValueError:
            raise InvalidMedia("it is not a valid URL") from None

    async def _get(self, url: "URL", write: Write, caller: str, max_bytes: int) -> http_client.HttpResponse:
        connection, tls = await self._connect(url, caller)
        return await http_client.get(connection, url, tls=tls, max_bytes=max_bytes, write=write)

    async def _connect(self, url: "URL", caller: str) -> tuple[socket.socket, ssl.SSLContext | None]:
        """Return a connection to an address that `_resolve_allowed` has checked, and the context of its TLS."""
        addresses = await self._resolve_allowed(url, caller)
        assert url.port is not None  # both schemes have one by default
        from aiohappyeyeballs import start_connection

        infos = [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                socket_address,
            )
            for address in addresses
            for socket_address in [(address, url.port, 0, 0) if ":" in address else (address, url.port)]
        ]
        try:
            connection = await start_connection(infos, happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY_SECONDS, interleave=1)
        except OSError:
            raise InvalidMedia(
                "its URL could not be fetched: its host refuses connections or does not respond"
            ) from None
        if url.scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()
        return connection, self._tls if url.scheme == "https" else None

    async def _resolve_allowed(self, url: "URL", caller: str) -> list[str]:
        """Return the addresses of a URL's host, which are all allowed. Raises `InvalidMedia`."""
        host, port, shown = _split(url)
        try:
            if self._resolve:
                found = await self._resolve(host, port)
            else:
                found = await self._resolver.resolve(host, port, caller=caller)
        except OSError:
            raise InvalidMedia(f"the host '{shown}' of its URL could not be resolved") from None
        addresses = list(dict.fromkeys(found))[:_MAX_ADDRESSES]
        self._check_addresses(addresses, host, shown)
        return addresses

    def _check_addresses(self, addresses: Sequence[str], host: str, shown: str) -> None:
        may_be_private = self._allow_private or host.rstrip(".").lower() in self._allowed_hosts
        if not addresses or not (may_be_private or all(is_public_address(address) for address in addresses)):
            raise InvalidMedia(f"the host '{shown}' of its URL is not on the public Internet")


def _split(url: "URL") -> tuple[str, int, str]:
    """Return the host, the port, and the host as messages show it. Raises `InvalidMedia`."""
    if url.scheme not in _DEFAULT_PORTS or not url.raw_host:
        raise InvalidMedia("its URL must begin with http:// or https:// and name a host")
    if url.user is not None or url.password is not None:
        raise InvalidMedia("its URL must not contain a user name or a password")
    if _is_legacy_ipv4(url.raw_host) or url.port == 0 or not (":" in url.raw_host or _HOST.fullmatch(url.raw_host)):
        raise InvalidMedia("it is not a valid URL")
    return url.raw_host, url.port or _DEFAULT_PORTS[url.scheme], (url.host or "")[:200]


def _is_legacy_ipv4(host: str) -> bool:
    """Return whether a host is an IPv4 address in a spelling that programs read differently: "127.1", "0x7f000001"."""
    last = host.rstrip(".").rpartition(".")[2]
    if not (last.isdigit() or last[:2].lower() == "0x"):
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False
