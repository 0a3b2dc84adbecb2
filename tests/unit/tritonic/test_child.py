"""A reaper leaves no process behind, whichever process dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tritonic.child import Child, ChildError, describe_exit, session_members

# A program with a child that ignores SIGTERM and has a session of its own, as a stray stub might.
STUBBORN = """
import signal, subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
grandchild = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
grandchild.stdout.readline()
open(sys.argv[1], "w").write(str(grandchild.pid))
time.sleep(600)
"""


def has_ended(pid, seconds=30.0):
    """Return True if the process ends within the time; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[0] in (b"Z", b"X"):
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def read_when_there(path):
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


@pytest.fixture
def stubborn(tmp_path):
    child = Child([sys.executable, "-c", STUBBORN, str(tmp_path / "pid")], grace=2)
    grandchild = read_when_there(tmp_path / "pid")
    yield child, grandchild
    child.stop()


def test_stop_ends_a_grandchild_in_another_session(stubborn):
    child, grandchild = stubborn
    assert len(child.processes()) == 2
    child.stop()
    assert child.processes() == []
    assert has_ended(grandchild)
    assert child.poll() == 128 + signal.SIGTERM


def test_descendants_of_a_killed_program_end(stubborn):
    child, grandchild = stubborn
    child.kill()
    assert child.wait(30) == 128 + signal.SIGKILL
    assert has_ended(grandchild)


def test_the_program_of_a_killed_reaper_ends(stubborn):
    child, grandchild = stubborn
    os.kill(child.session, signal.SIGKILL)
    assert child.wait(30) == -signal.SIGKILL
    assert has_ended(child.pid)
    # In a session of its own and with its reaper dead, this one is beyond the reaper's reach.
    os.kill(grandchild, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_no_process_survives_its_starter(tmp_path, number):
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from tritonic.child import Child;"
            f"c = Child([sys.executable, '-c', {STUBBORN!r}, sys.argv[1]], grace=2);"
            "print(c.session, c.pid, flush=True); time.sleep(600)",
            str(tmp_path / "pid"),
        ],
        stdout=subprocess.PIPE,
    )
    assert starter.stdout is not None
    session, program = map(int, starter.stdout.readline().split())
    grandchild = read_when_there(tmp_path / "pid")
    starter.send_signal(number)
    starter.wait(30)
    starter.stdout.close()
    assert has_ended(program)
    assert has_ended(grandchild)
    assert has_ended(session)
    assert session_members(session) == []


def test_a_program_that_ignores_sigterm_is_killed_after_its_grace():
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    read, write = os.pipe()
    with os.fdopen(write, "wb") as output:
        child = Child([sys.executable, "-c", code], grace=0.3, output=output)
    with os.fdopen(read, "rb") as lines:
        lines.readline()
        child.stop()
    assert child.poll() == 128 + signal.SIGKILL


def test_shared_memory_is_removed(tmp_path):
    prefix = f"tritonic_test_{os.getpid()}_"
    ours, other = Path(f"/dev/shm/{prefix}region"), Path(f"/dev/shm/x{prefix}region")
    try:
        ours.write_text("x")
        other.write_text("x")
        child = Child([sys.executable, "-c", "raise SystemExit(3)"], shm_prefix=prefix)
        assert child.wait(30) == 3
        assert not ours.exists()
        assert other.exists()
    finally:
        other.unlink(missing_ok=True)
        ours.unlink(missing_ok=True)


def test_a_program_that_is_not_there(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        child = Child([str(tmp_path / "absent")], output=log)
    assert child.wait(30) == 127
    assert "absent cannot be started: No such file or directory" in (tmp_path / "log").read_text()


def test_a_reaper_that_cannot_work_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("tritonic.child.REAPER", tmp_path / "absent.py")
    with pytest.raises(ChildError, match="could not be started"):
        Child([sys.executable])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with status 0"),
        (1, "ended with status 1"),
        (137, "was killed by signal 9"),
        (-9, "was killed by signal 9"),
    ],
)
def test_statuses_in_words(status, words):
    assert describe_exit(status) == words
