"""Which hosts a request may name, and which pages may send one.

A browser sends requests to this machine on behalf of any page that it shows. Where a key is asked for, a page that has
none gets nothing. Where none is, two things tell pages of others apart. A page whose name leads here (DNS rebinding)
names its own host in the header `Host`. Any other page has the header `Origin` of its own, which the browser sets.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import Forbidden, GatewayError, InvalidRequest
from gateway.settings import Settings

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,254}))(?::[0-9]{0,5})?")
_MAX_CACHED_HOSTS = 1024
"""Values of `Host` that are not looked at again."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""What a page may do without an `Origin`: show a picture of the gateway, or lead to its documentation."""
_CROSS_SITE = frozenset({b"cross-site", b"same-site"})


class HostOriginMiddleware:
    """Refuses what names no host, a host that is not ours, or comes from a page of others. Plain ASGI.

    One well-formed `Host` is asked of every request. Whether it is ours is asked where no key is (`api_keys` is empty,
    or the path is that of a platform whose `keys` are), and everywhere where the setting `allowed_hosts` names hosts.
    Origins are looked at where no key is asked for: a page cannot send a key that it does not have.
    """

    def __init__(self, app: ASGIApp, settings: Settings, render: Callable[[str, GatewayError], Response]) -> None:
        """`render` returns the response to a failure on a path, in the error format of the path's dialect."""
        self._app = app
        self._render = render
        self._has_no_keys = not settings.api_keys
        self._paths_without_keys = tuple(f"/{name}/" for name, its in settings.platforms.items() if its.keys == [])
        self._hosts = frozenset(_own_hosts(settings))
        self._domains = tuple(name[1:] for name in settings.allowed_hosts if name.startswith("*."))
        self._any_host = "*" in settings.allowed_hosts
        self._check_every_host = bool(settings.allowed_hosts)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.cors_origins)
        if settings.public_url:
            parts = urlsplit(settings.public_url)
            self._origins |= {f"{parts.scheme}://{parts.netloc}".lower()}
        self._host_cache: dict[bytes, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer why not."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except GatewayError as error:
                scope["state"]["trace"].error = error
                await self._render(scope["path"], error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        host: bytes | None = None
        origin: bytes | None = None
        site = b""
        hosts = 0
        for name, value in scope["headers"]:
            if name == b"host":
                host, hosts = value, hosts + 1
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        if host is None:
            if scope["http_version"] != "1.0":
                raise InvalidRequest("The header 'Host' is missing: HTTP/1.1 asks for it.", param="Host")
            named = None
        else:
            named = self._host_cache.get(host) or self._parse_host(host)
        if hosts > 1:
            raise InvalidRequest("The header 'Host' stands more than once.", param="Host")
        is_open = self._has_no_keys or (
            bool(self._paths_without_keys) and scope["path"].startswith(self._paths_without_keys)
        )
        if named is not None and (is_open or self._check_every_host) and named not in self._hosts:
            self._check_host(named, scope)
        if is_open and (origin is not None or site in _CROSS_SITE):
            self._check_origin(origin, host, scope["method"])

    def _parse_host(self, host: bytes) -> str:
        """The host of a header, in lower case and without port, brackets and a dot at the end."""
        match = _HOST.fullmatch(host.decode("latin-1"))
        name = match[1].lower().removesuffix(".") if match else ""
        if name.startswith("["):
            address = _address(name[1:-1])
            name = str(address) if address else ""
        if not name:
            raise InvalidRequest("The header 'Host' must be a name or an address, and a port.", param="Host")
        if len(self._host_cache) >= _MAX_CACHED_HOSTS:
            self._host_cache.clear()
        self._host_cache[host] = name
        return name

    def _check_host(self, name: str, scope: Scope) -> None:
        if self._any_host or name.endswith(self._domains or ("\0",)):
            return
        address = _address(name)
        if address is not None:
            here = _address((scope.get("server") or ("", None))[0])
            if address.is_loopback or address == here:
                return
        raise Forbidden(
            f"The host '{name[:100]}' is none of this gateway's. Add it to the setting TRITONIC_ALLOWED_HOSTS"
            + (", or set TRITONIC_API_KEYS." if self._has_no_keys else "."),
            param="Host",
        )

    def _check_origin(self, origin: bytes | None, host: bytes | None, method: str) -> None:
        if "*" in self._origins:
            return
        if origin is None:
            if method in _SAFE_METHODS:
                return
        else:
            page = origin.decode("latin-1").lower()
            same = host is not None and page.partition("://")[2] == host.decode("latin-1").lower()
            if same or page in self._origins:
                return
        shown = "another site" if origin is None else f"'{page[:100]}'"
        raise Forbidden(
            f"Pages of {shown} may not call this gateway. Add their origin to the setting TRITONIC_CORS_ORIGINS.",
            param="Origin",
        )


class PreflightMiddleware(CORSMiddleware):
    """Starlette's, which tells any page that it may reach a private network, where some may."""

    def __init__(self, app: ASGIApp, settings: Settings, expose_headers: Sequence[str]) -> None:
        """`expose_headers` are those of answers that pages may read."""
        super().__init__(
            app,
            allow_origins=[origin.rstrip("/").lower() for origin in settings.cors_origins],
            allow_methods=["*"],
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=expose_headers,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer what a browser asks before it lets a page send a request."""
        response = super().preflight_response(request_headers)
        if not self.is_allowed_origin(request_headers["origin"]):
            del response.headers["access-control-allow-private-network"]
        return response


def _own_hosts(settings: Settings) -> Iterator[str]:
    yield "localhost"
    for url in (settings.public_url, settings.node_api_url):
        if url and (name := urlsplit(url).hostname):
            yield _normalized(name)
    for name in (settings.host, *settings.allowed_hosts):
        yield _normalized(name)


def _normalized(name: str) -> str:
    return str(_address(name) or name.lower().removesuffix("."))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address; one of IPv4 that is written as IPv6 is that of IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
