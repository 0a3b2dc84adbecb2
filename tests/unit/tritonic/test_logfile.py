"""Logs of child processes are rotated while the child writes, without losing its last lines."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tritonic import logfile
from tritonic.logfile import LogFile

WRITER = """
import sys, time
for number in range(int(sys.argv[1])):
    print(f"line {number:06}", flush=True)
    if number % 50 == 0:
        time.sleep(0.001)
"""


def test_a_writing_child_fills_at_most_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "MAX_LOG_BYTES", 20_000)
    log = LogFile(tmp_path / "child.log")
    rotated = tmp_path / "child.log.1"
    with log.open() as file:
        child = subprocess.Popen([sys.executable, "-c", WRITER, "20000"], stdout=file)
    sizes, seen = [], set[str]()
    while child.poll() is None:
        log.rotate_if_large()
        for path in (rotated, log.path):
            if path.exists():
                sizes.append(path.stat().st_size)
                seen.update(path.read_text(errors="replace").split("\n"))
        time.sleep(0.002)
    assert max(sizes) < 150_000, "of 240,000 bytes"
    assert b"\0" not in log.path.read_bytes(), "the child appends: there is no hole at the beginning"
    assert log.lines() and log.lines()[-1] == "line 019999"
    # Lines that are written between the copy and the truncation are lost; on a busy machine there are more of them.
    whole = {f"line {number:06}" for number in range(20_000)}
    assert len(whole - seen) < 2_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["child.log", "child.log.1"]


def test_a_small_log_is_not_rotated(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "child.log")
    with log.open() as file:
        file.write(b"one\n")
    log.rotate_if_large()
    assert log.lines() == ["one"] and not (tmp_path / "child.log.1").exists()


def test_a_log_that_cannot_be_copied_is_truncated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "MAX_LOG_BYTES", 10)

    def fail(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "sendfile", fail)
    log = LogFile(tmp_path / "child.log")
    with log.open() as file:
        file.write(b"x" * 100 + b"\n")
        file.flush()
        log.rotate_if_large()
        file.write(b"next\n")
        file.flush()
        assert log.lines() == ["next"]
    assert not (tmp_path / "child.log.1").exists()


def test_rotation_accepts_a_missing_log(tmp_path: Path) -> None:
    LogFile(tmp_path / "child.log").rotate_if_large()
