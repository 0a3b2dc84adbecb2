"""The client address that a trusted proxy reports."""

import asyncio
from typing import Any

import pytest

from tritonic.http_server.proxy_headers import ProxyHeaders


def client_address(forwarded: str, peer: str = "127.0.0.1") -> str:
    """Return the client address of a request from `peer` with this `X-Forwarded-For`."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])

    scope: Any = {
        "type": "http",
        "client": (peer, 5),
        "headers": [(b"x-forwarded-for", forwarded.encode("latin-1"))],
        "scheme": "http",
    }
    asyncio.run(ProxyHeaders(app)(scope, None, None))  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("192.0.2.1:port", "127.0.0.1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("garbage, 192.0.2.1, 127.0.0.1", "192.0.2.1"),
        ("192.0.2.1, garbage", "127.0.0.1"),
        ("a:b", "127.0.0.1"),
        ("unknown", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("9" * 60_000, "127.0.0.1"),
        ("127.0.0.1, " * 5000 + "127.0.0.1", "127.0.0.1"),
    ],
)
def test_the_client_address_is_read_from_proxy_headers(forwarded: str, address: str) -> None:
    assert client_address(forwarded) == address


def test_headers_of_untrusted_peers_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    assert client_address("192.0.2.1", peer="198.51.100.1") == "198.51.100.1"
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "198.51.100.0/24")
    assert client_address("192.0.2.1", peer="198.51.100.1") == "192.0.2.1"
