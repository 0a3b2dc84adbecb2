"""The servers' table: saturated and at a pace side by side, and packages of one version for all."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import asgi


def test_servers_are_compared_saturated_and_at_a_pace() -> None:
    rest = {"CPU without streaming": [1.0], "first token": [2.0], "memory": [70.0]}
    found = {
        name: {"CPU": [cost, 2 * cost, cost], **rest}
        for name, cost in zip(asgi.SERVERS, (20.0, 10.0, 40.0), strict=True)
    }
    paced = {name: {"CPU": [cost] * 3} for name, cost in zip(asgi.SERVERS, (80.0, 120.0, 60.0), strict=True)}
    table = asgi._servers(found, paced, {"h11": "0.16.0"})
    assert table.values("CPU a token, to uvicorn's") == [1.0, 0.5, 2.0]
    assert table.values("CPU at a pace") == [80, 120, 60]
    assert table.values("that, to uvicorn's") == [1.0, 1.5, 0.75]
    assert table.details["installed"] == {"h11": "0.16.0"} and table.details["rounds at a pace"] == paced


def test_what_all_share_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def installs(command: Sequence[str], *, check: bool) -> None:
        asked.append(list(command))
        Path(command[command.index("--target") + 1]).mkdir(parents=True)

    monkeypatch.setattr(subprocess, "run", installs)
    home = asgi.installed(tmp_path)
    (command,) = asked
    assert Path(command[command.index("--constraint") + 1]).name == "constraints.txt"
    pins = asgi._pins()
    assert all(f"-{name}-{pins[name]}" in home.name for name in ("h11", "h2"))
    assert asgi.installed(tmp_path) == home and len(asked) == 1
