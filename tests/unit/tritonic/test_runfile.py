import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tritonic import runfile
from tritonic.down import down
from tritonic.runfile import ProcessIdentity, RunRecord

SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]


@pytest.fixture
def sleeper():
    """A process that has nothing to do with us."""
    process = subprocess.Popen(SLEEP, stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_written_and_read_back(tmp_path):
    note = RunRecord(ProcessIdentity.current(), "tag", "/models", "http://127.0.0.1:1", "127.0.0.1:2", "secret")
    (tmp_path / "up.json.new").touch(mode=0o644)  # left behind by one that was killed
    runfile.write(tmp_path, note)
    assert (tmp_path / "up.json").stat().st_mode & 0o777 == 0o600
    assert "secret" not in repr(note)
    assert runfile.find_running(tmp_path) == note
    assert [path.name for path in tmp_path.iterdir()] == ["up.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"supervisor": 1}', '{"supervisor": {"pid": 1}}'])
def test_a_torn_file_means_that_nothing_runs(tmp_path, text):
    (tmp_path / "up.json").write_text(text)
    assert runfile.find_running(tmp_path) is None
    assert down(tmp_path) is False


def test_a_process_that_ended_is_not_running(tmp_path):
    process = subprocess.Popen(SLEEP, stdout=subprocess.PIPE)
    identity = ProcessIdentity.of(process.pid)
    assert identity.is_alive()
    process.kill()
    # Not yet waited for, it still has its number; it does not run all the same.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.is_alive()
    process.wait()
    process.stdout.close()
    assert not identity.is_alive()


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot": "another"}])
def test_down_does_not_hit_a_recycled_process_id(tmp_path, sleeper, change):
    identity = replace(ProcessIdentity.of(sleeper.pid), **change)
    runfile.write(tmp_path, RunRecord(identity, "tag-of-nobody", "/models"))
    assert runfile.find_running(tmp_path) is None
    assert down(tmp_path) is False
    assert sleeper.poll() is None
    assert not (tmp_path / "up.json").exists()


def test_down_ends_the_very_process(tmp_path, sleeper):
    runfile.write(tmp_path, RunRecord(ProcessIdentity.of(sleeper.pid), "tag-of-nobody", "/models"))
    assert down(tmp_path) is True
    assert sleeper.wait(5) == -15


def test_down_ends_what_a_killed_supervisor_left(tmp_path):
    left = subprocess.Popen(SLEEP, stdout=subprocess.PIPE, env=os.environ | {runfile.TAG: "left-behind"})
    left.stdout.readline()
    gone = ProcessIdentity(left.pid, 1, "another boot")
    runfile.write(tmp_path, RunRecord(gone, "left-behind", "/models"))
    assert runfile.tagged_pids("left-behind") == [left.pid]
    down(tmp_path, patience=0.1, orphans=0.1)
    assert left.wait(5) == -9
    left.stdout.close()


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
