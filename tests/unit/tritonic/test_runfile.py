import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tritonic import runfile
from tritonic.down import down
from tritonic.runfile import ProcessIdentity, RunRecord

SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]


def start_sleeper(**environment: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(SLEEP, stdout=subprocess.PIPE, env=os.environ | environment)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
    return process


def identify(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    identity = ProcessIdentity.of(process.pid)
    assert identity is not None
    return identity


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that Tritonic did not start."""
    process = start_sleeper()
    yield process
    process.kill()
    process.wait()


def test_a_record_is_written_and_read_back(tmp_path):
    record = RunRecord(ProcessIdentity.current(), "tag", "/models", "http://127.0.0.1:1", "127.0.0.1:2", "secret")
    (tmp_path / "up.json.new").touch(mode=0o644)  # left by a killed process
    runfile.write(tmp_path, record)
    assert (tmp_path / "up.json").stat().st_mode & 0o777 == 0o600
    assert "secret" not in repr(record)
    assert runfile.find_running(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == ["up.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"supervisor": 1}', '{"supervisor": {"pid": 1}}'])
def test_a_torn_file_means_that_nothing_runs(tmp_path, text):
    (tmp_path / "up.json").write_text(text)
    assert runfile.find_running(tmp_path) is None
    assert down(tmp_path) is False


def test_a_process_that_ended_is_not_running(tmp_path):
    process = start_sleeper()
    identity = identify(process)
    assert identity.is_alive()
    process.kill()
    # A zombie still has its process id, but it does not run.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.is_alive()
    process.wait()
    assert not identity.is_alive()


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot": "another"}])
def test_down_does_not_hit_a_recycled_process_id(tmp_path, sleeper, change):
    identity = replace(identify(sleeper), **change)
    runfile.write(tmp_path, RunRecord(identity, "tag-of-nobody", "/models"))
    assert runfile.find_running(tmp_path) is None
    assert down(tmp_path) is False
    assert sleeper.poll() is None
    assert not (tmp_path / "up.json").exists()


def test_down_ends_the_recorded_process(tmp_path, sleeper):
    runfile.write(tmp_path, RunRecord(identify(sleeper), "tag-of-nobody", "/models"))
    assert down(tmp_path) is True
    assert sleeper.wait(30) == -15


def test_down_ends_processes_that_a_killed_supervisor_left(tmp_path):
    orphan = start_sleeper(**{runfile.TAG: "left-behind"})
    supervisor = ProcessIdentity(orphan.pid, 1, "another boot")
    runfile.write(tmp_path, RunRecord(supervisor, "left-behind", "/models"))
    assert runfile.tagged_pids("left-behind") == [orphan.pid]
    down(tmp_path, patience=0.1, orphans=0.1)
    assert orphan.wait(30) == -9


def test_one_folder_has_one_owner(tmp_path):
    with runfile.lock(tmp_path):
        runfile.write(tmp_path, RunRecord(ProcessIdentity.current(), "tag", "/models", "http://127.0.0.1:1"))
        sentence = rf"process {os.getpid()}, http://127.0.0.1:1"
        with pytest.raises(runfile.AlreadyRunningError, match=sentence), runfile.lock(tmp_path):
            pass
        assert runfile.find_running(tmp_path) is not None
    assert runfile.find_running(tmp_path) is None
    with runfile.lock(tmp_path):
        pass
