"""URLs of callers, fetched without trust in the callers, the names, the servers or what they send."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from gateway.media.addresses import is_public
from gateway.media.inline import too_large
from gateway.media.unusable import Unusable

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, or raises `OSError`."""

Take: TypeAlias = Callable[[int], None]
"""Is told of bytes as they come, and raises `Unusable` where they are too many."""

_REDIRECTS = 3
LONGEST_URL = 8192
"""Characters."""
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a server sent. `declared` is the media type it claims, `name` the end of the path; either may be empty."""

    data: bytes
    declared: str
    name: str


async def ask_system(host: str, port: int) -> Sequence[str]:
    """Resolve a host, or an IPv4 address in any of its spellings, as the machine does."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Fetcher:
    """Fetches what callers name. Environment proxies, cookies and credentials play no part in it."""

    def __init__(
        self,
        *,
        timeout: float,
        max_bytes: int,
        allow_private: bool,
        allowed_hosts: Collection[str],
        resolve: Resolve = ask_system,
    ) -> None:
        """`timeout` is in seconds, from the first look-up to the last byte. `allowed_hosts` may be private."""
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._allow_private = allow_private
        self._allowed_hosts = frozenset(host.strip("[]").rstrip(".").lower() for host in allowed_hosts)
        self._resolve = resolve
        self._tls: ssl.SSLContext | None = None

    async def fetch(self, url: str, take: Take) -> Fetched:
        """Return what is at `url`, of which `take` is told piece by piece. Raises `Unusable`."""
        if len(url) > LONGEST_URL:
            raise Unusable(f"the URL is longer than {LONGEST_URL} characters")
        # With its dependencies 20 MB and a quarter of a second: only where it is needed.
        from aiohttp import ClientError, InvalidURL
        from yarl import URL

        try:
            async with asyncio.timeout(self._timeout):
                location = URL(url)
                for _ in range(_REDIRECTS + 1):
                    found = await self._step(location, take)
                    if isinstance(found, Fetched):
                        return found
                    location = found
        except TimeoutError:
            raise Unusable(f"its URL could not be fetched within {self._timeout:g} seconds") from None
        except ClientError as error:
            if isinstance(error, InvalidURL):
                raise Unusable("it is not a valid URL") from None
            raise Unusable(f"its URL could not be fetched: {_explain(error)}") from None
        except ValueError:
            raise Unusable("it is not a valid URL") from None
        raise Unusable(f"its URL redirects more than {_REDIRECTS} times")

    async def _step(self, url: "URL", take: Take) -> "Fetched | URL":
        """Ask one server. Returns where it redirects to, if it does."""
        import aiohttp
        from yarl import URL

        headers = {"User-Agent": "Tritonic", "Accept": "*/*", "Accept-Encoding": "identity"}
        # A connector of its own for every step: no connection outlives the check of its address.
        async with (
            aiohttp.ClientSession(
                connector=await self._connector(url),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None),  # ours is around everything
                trust_env=False,
            ) as session,
            session.get(url.with_fragment(None), allow_redirects=False) as response,
        ):
            if response.status in (301, 302, 303, 307, 308) and "Location" in response.headers:
                return url.join(URL(response.headers["Location"]))
            if response.status != 200:
                raise Unusable(f"its URL answers with the status {response.status} instead of 200")
            if (response.content_length or 0) > self._max_bytes:
                raise too_large(self._max_bytes)
            data = bytearray()
            async for piece in response.content.iter_chunked(_PIECE):  # unpacked already
                data += piece
                if len(data) > self._max_bytes:
                    raise too_large(self._max_bytes)
                take(len(piece))
            declared = response.content_type if "Content-Type" in response.headers else ""
            return Fetched(data=bytes(data), declared=declared, name=url.name)

    async def _connector(self, url: "URL") -> "aiohttp.TCPConnector":
        """Return a connector that reaches the addresses of this URL's host that were looked at, and nothing else."""
        import aiohttp

        if url.scheme not in ("http", "https") or not url.host:
            raise Unusable("its URL must begin with http:// or https:// and name a host")
        if url.user is not None or url.password is not None:
            raise Unusable("its URL must not hold a user name or a password")
        assert url.port is not None  # both schemes have one by default
        try:
            checked = list(dict.fromkeys(await self._resolve(url.host, url.port)))
        except OSError:
            raise Unusable(f"the host '{url.host[:200]}' of its URL is not known") from None
        may_be_private = self._allow_private or url.host.rstrip(".").lower() in self._allowed_hosts
        if not checked or not (may_be_private or all(is_public(address) for address in checked)):
            raise Unusable(f"the host '{url.host[:200]}' of its URL is not on the public Internet")

        def open_socket(where: "aiohttp.AddrInfoType") -> socket.socket:
            family, kind, protocol, _, address = where
            # What looks like an address is never resolved, and the system may read it differently ("127.1"). So no
            # socket leaves for anything that was not looked at, whatever happened to the name on its way here.
            if address[0] not in checked:
                raise Unusable(f"the host '{str(address[0])[:200]}' of its URL is an address in an unusual spelling")
            return socket.socket(family, kind, protocol)

        if url.scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()
        return aiohttp.TCPConnector(
            resolver=_pinned(checked),
            socket_factory=open_socket,
            ssl=self._tls or True,
            force_close=True,
            use_dns_cache=False,
        )


def _pinned(addresses: Sequence[str]) -> "aiohttp.abc.AbstractResolver":
    """Return a resolver that knows one answer. A name that is looked up twice may have changed its mind."""
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Pinned(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            return [
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                    proto=socket.IPPROTO_TCP,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
                for address in addresses
            ]

        async def close(self) -> None:
            return

    return Pinned()


def _explain(error: Exception) -> str:
    """Say what went wrong, without telling what is behind the host's name."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the certificate of its host is not valid"
    if isinstance(error, aiohttp.ClientSSLError):
        return "its host does not speak TLS as it should"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "its host does not take the connection"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer is cut off or broken"
    return "its host does not answer as a web server should"
