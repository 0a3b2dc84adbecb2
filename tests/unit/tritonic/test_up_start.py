"""The checks of `up` before it starts anything, and its wait for the gateway."""

import io
import os
import socket
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tritonic import up
from tritonic.ports import PortError
from tritonic.settings import SettingsError
from tritonic.up import UpOptions


def plan(folder: Path, **ports: int) -> UpOptions:
    """Return options with free ports and closed endpoints, except for the given ones."""
    numbers: dict[str, Any] = {"port": 0, "metrics_port": 0, **ports}
    return UpOptions(repository=folder / "models", state=folder / "state", **numbers)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("TRITONIC_REQUEST_TIMEOUT", "abc", "TRITONIC_REQUEST_TIMEOUT: Input should be a valid number"),
        ("TRITONIC_LOG_LEVEL", "loud", "TRITONIC_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error'"),
        ("TRITONIC_MODELS_FILE", "absent.toml", "The models file absent.toml cannot be read: No such file"),
    ],
)
def test_invalid_settings_end_up_before_anything_is_started(
    tmp_path: Path, variable: str, value: str, sentence: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tritonic", "up", "--port", "0"],
        cwd=tmp_path,
        env=os.environ | {variable: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, "Traceback" in ran.stderr) == (1, False)
    assert sentence in ran.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".tritonic", "up.lock"]


def test_up_reads_the_settings_of_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_API_KEYS", "one,two")
    monkeypatch.setenv("TRITONIC_PORT", "7")  # The option wins.
    settings = up._check(plan(tmp_path))
    assert (len(settings.api_keys), settings.port) == (2, 0)
    monkeypatch.setenv("TRITONIC_MEDIA_TIMEOUT", "0")
    with pytest.raises(SettingsError, match="TRITONIC_MEDIA_TIMEOUT: Input should be greater than 0"):
        up._check(plan(tmp_path))


@pytest.mark.parametrize(
    ("field", "remedy"),
    [
        ("port", '--port or TRITONIC_PORT (make up ARGS="--port 0" takes a free one)'),
        ("http_port", '--triton-http-port (make up ARGS="--triton-http-port 0" takes a free one)'),
        ("grpc_port", '--triton-grpc-port (make up ARGS="--triton-grpc-port 0" takes a free one)'),
        ("metrics_port", '--triton-metrics-port (make up ARGS="--triton-metrics-port 0" takes a free one)'),
    ],
)
def test_a_taken_port_is_reported_with_a_remedy(tmp_path: Path, field: str, remedy: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortError) as failure:
        up._check(plan(tmp_path, **{field: taken.getsockname()[1]}))
    assert str(failure.value).endswith(f" End it, or choose another port with {remedy}.")


class Clock:
    """A clock that only the fake gateway moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Gateway:
    """A fake gateway. It is live after `live_after` seconds, and finds models after `looks` calls, 1 s each."""

    url = "http://127.0.0.1:1"

    def __init__(self, clock: Clock, live_after: float, looks: int) -> None:
        self.clock, self.live_after, self.looks = clock, live_after, looks

    def start(self) -> None:
        pass

    def wait_live(self) -> None:
        self.clock.now += self.live_after

    def has_models(self) -> bool:
        self.clock.now += 1
        self.looks -= 1
        return self.looks < 0

    def poll(self) -> None:
        return None


@pytest.mark.parametrize(("live_after", "looks", "warned"), [(0.5, 2, False), (30, 2, False), (30, 100, True)])
def test_the_wait_for_models_starts_when_the_gateway_is_live(
    monkeypatch: pytest.MonkeyPatch, live_after: float, looks: int, warned: bool
) -> None:
    clock, output, stopping = Clock(), io.StringIO(), threading.Event()
    monkeypatch.setattr(up, "time", types.SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr(stopping, "wait", lambda seconds: False)
    up._start_gateway(Gateway(clock, live_after, looks), True, Console(file=output, width=200), stopping)  # type: ignore[arg-type]
    assert ("has found no model that it can serve" in output.getvalue()) is warned
    assert "The gateway is ready" in output.getvalue()
