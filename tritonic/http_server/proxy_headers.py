"""The client's address from a trusted reverse proxy's headers (`FORWARDED_ALLOW_IPS`)."""

import os
from ipaddress import ip_address

from uvicorn._types import ASGI3Application
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware, _TrustedHosts


class ProxyHeaders(ProxyHeadersMiddleware):
    """uvicorn's middleware, but text in the header that is not an IP address is ignored. uvicorn takes any text."""

    def __init__(self, app: ASGI3Application) -> None:
        """Trust the proxies that uvicorn would trust: those of `FORWARDED_ALLOW_IPS`, else 127.0.0.1."""
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
