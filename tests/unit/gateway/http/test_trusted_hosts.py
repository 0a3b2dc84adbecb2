"""Which `Host` a request may have, by the local address of its connection."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.responses import Response

from gateway.errors import GatewayError
from gateway.http.trusted_hosts import HostOriginMiddleware
from gateway.settings import Settings


def status(server: tuple[str, int] | None, host: str, /, **settings: Any) -> int:
    """Return the status of the response to a request on a connection to `server` with a `Host`."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Response(status_code=200)(scope, receive, send)

    async def send(message: Any) -> None:
        sent.append(message)

    def render(_: str, error: GatewayError) -> Response:
        return Response(error.message, error.status)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/health/live",
        "server": server,
        "headers": [(b"host", host.encode())],
        "state": {"trace": SimpleNamespace(error=None)},
    }
    check = HostOriginMiddleware(app, Settings(_env_file=None, **settings), render)  # type: ignore[call-arg]
    asyncio.run(check(scope, None, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("server", "host", "expected"),
    [
        (("10.1.2.3", 1088), "10.1.2.3:1088", 200),  # a probe of a cluster, by the address of the pod
        (("10.1.2.3", 1088), "10.1.2.4:1088", 403),
        (("10.1.2.3", 1088), "gateway:1088", 403),
        (("::ffff:10.1.2.3", 1088), "10.1.2.3", 200),
        (("10.1.2.3", 1088), "[::ffff:10.1.2.3]", 200),
        (("fd00::1", 1088), "[fd00:0::1]:1088", 200),
        (("fe80::1%eth0", 1088), "[fe80::1]", 200),
        (("/run/gateway.sock", 0), "localhost", 200),
        (("/run/gateway.sock", 0), "gateway", 403),
        (None, "10.1.2.3", 403),
    ],
)
def test_the_host_that_was_connected_to_is_trusted(server: tuple[str, int] | None, host: str, expected: int) -> None:
    assert status(server, host) == expected


def test_hosts_of_the_settings_are_trusted() -> None:
    assert status(("172.18.0.3", 1088), "192.168.1.5", node_url="http://192.168.1.5:6000") == 403
    node = {"node_url": "http://192.168.1.5:6000", "node_api_url": "http://192.168.1.5:1088"}
    assert status(("172.18.0.3", 1088), "192.168.1.5:1088", **node) == 200
    assert status(("172.18.0.3", 1088), "0.0.0.0:1088", host="0.0.0.0") == 200
    assert status(("172.18.0.3", 1088), "0.0.0.0:1088") == 403


@pytest.mark.parametrize("text", ["http://a", "a:1", "a b", "*.", "*a", "a/", "[::1]"])
def test_invalid_hosts_of_the_setting_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_ALLOWED_HOSTS", f"localhost,{text}")
    with pytest.raises(ValueError, match="is not a host"):
        Settings()


def test_the_cache_of_hosts_is_bounded() -> None:
    app: Any = None
    check = HostOriginMiddleware(app, Settings(), lambda _, error: Response())
    for number in range(3000):
        check._parse_host(b"localhost:%d" % number)
    assert len(check._host_cache) <= 1024
