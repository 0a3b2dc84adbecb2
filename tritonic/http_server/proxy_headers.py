"""Whose requests a reverse proxy passes on, where it says so and may be believed (`FORWARDED_ALLOW_IPS`)."""

import os
from ipaddress import ip_address

from uvicorn._types import ASGI3Application
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware, _TrustedHosts


class ProxyHeaders(ProxyHeadersMiddleware):
    """uvicorn's own, which takes any text for an address; here a text that is none changes nothing."""

    def __init__(self, app: ASGI3Application) -> None:
        """Proxies are believed as uvicorn believes them: those of `FORWARDED_ALLOW_IPS`, else 127.0.0.1."""
        proxies = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")
        super().__init__(app, proxies)
        self.trusted_hosts = _TrustedAddresses(proxies)


class _TrustedAddresses(_TrustedHosts):
    def get_trusted_client_address(self, x_forwarded_for: str) -> tuple[str, int]:
        host, port = super().get_trusted_client_address(x_forwarded_for)
        try:
            return str(ip_address(host.partition("%")[0])), port
        except ValueError:
            return "", 0  # the connection's own address stays
