"""Protection against web pages of other sites: checks of the headers `Host` and `Origin`.

A browser sends requests to this machine on behalf of any page that it shows. If the gateway requires a key, such a
request fails. If it requires no key, two headers reveal the page. With DNS rebinding, the host name of the page
resolves to this machine, and `Host` has that name. For any other page, the browser sends its origin in `Origin`.
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
"""Values of `Host` whose parsed form is cached."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that pages of other sites may use without an `Origin`: to show an image, or to link to the docs."""
_CROSS_SITE = frozenset({b"cross-site", b"same-site"})


class HostOriginMiddleware:
    """Plain ASGI middleware that refuses requests without `Host`, with a foreign host, or from pages of other sites.

    Every request must have one well-formed `Host`. It must name a host of the gateway if the path requires no key
    (`api_keys` is empty, or the platform of the path has empty `keys`), and on every path if the setting
    `allowed_hosts` is set. `Origin` is checked if the path requires no key: otherwise a page would need a key.
    """

    def __init__(self, app: ASGIApp, settings: Settings, render: Callable[[str, GatewayError], Response]) -> None:
        """`render` returns the response to a failure on a path, in the error format of the path's dialect."""
        self._app = app
        self._render = render
        self._has_no_keys = not settings.api_keys
        self._paths_without_keys = tuple(f"/{name}/" for name, view in settings.platforms.items() if view.keys == [])
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
        """Pass a request on, or refuse it."""
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
                raise InvalidRequest("The header 'Host' is missing: HTTP/1.1 requires it.", param="Host")
            host_name = None
        else:
            host_name = self._host_cache.get(host) or self._parse_host(host)
        if hosts > 1:
            raise InvalidRequest("The header 'Host' occurs more than once.", param="Host")
        is_keyless = self._has_no_keys or (
            bool(self._paths_without_keys) and scope["path"].startswith(self._paths_without_keys)
        )
        if host_name is not None and (is_keyless or self._check_every_host) and host_name not in self._hosts:
            self._check_host(host_name, scope)
        if is_keyless and (origin is not None or site in _CROSS_SITE):
            self._check_origin(origin, host, scope["method"])

    def _parse_host(self, host: bytes) -> str:
        """Return the host of a header in lower case, without port, brackets and a final dot."""
        match = _HOST.fullmatch(host.decode("latin-1"))
        name = match[1].lower().removesuffix(".") if match else ""
        if name.startswith("["):
            address = _address(name[1:-1])
            name = str(address) if address else ""
        if not name:
            raise InvalidRequest(
                "The header 'Host' must be a host name or an IP address, with an optional port.", param="Host"
            )
        if len(self._host_cache) >= _MAX_CACHED_HOSTS:
            self._host_cache.clear()
        self._host_cache[host] = name
        return name

    def _check_host(self, name: str, scope: Scope) -> None:
        if self._any_host or name.endswith(self._domains or ("\0",)):
            return
        address = _address(name)
        if address is not None:
            server_address = _address((scope.get("server") or ("", None))[0])
            if address.is_loopback or address == server_address:
                return
        raise Forbidden(
            f"The host '{name[:100]}' is not a host of this gateway. Add it to the setting TRITONIC_ALLOWED_HOSTS"
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
    """Starlette's CORS middleware, which allows access to a private network only for the allowed origins."""

    def __init__(self, app: ASGIApp, settings: Settings, expose_headers: Sequence[str]) -> None:
        """Pages may read the `expose_headers` of responses."""
        super().__init__(
            app,
            allow_origins=[origin.rstrip("/").lower() for origin in settings.cors_origins],
            allow_methods=["*"],
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=expose_headers,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight request, which a browser sends before a request of a page."""
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
    """Return an IP address, None if `text` is none. An IPv4 address in IPv6 notation becomes IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
