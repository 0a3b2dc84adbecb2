"""What a proxy may say of whom it passes on."""

import asyncio
from typing import Any

import pytest

from tritonic.http_server.proxy_headers import ProxyHeaders


def client(said: str, came_from: str = "127.0.0.1") -> str:
    """Who asks, where a connection from an address says so."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])

    scope: Any = {
        "type": "http",
        "client": (came_from, 5),
        "headers": [(b"x-forwarded-for", said.encode("latin-1"))],
        "scheme": "http",
    }
    asyncio.run(ProxyHeaders(app)(scope, None, None))  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize(
    ("said", "who"),
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
def test_who_is_passed_on(said: str, who: str) -> None:
    assert client(said) == who


def test_strangers_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert client("192.0.2.1", came_from="198.51.100.1") == "198.51.100.1"
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "198.51.100.0/24")
    assert client("192.0.2.1", came_from="198.51.100.1") == "192.0.2.1"
