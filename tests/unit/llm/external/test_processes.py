"""The process of a model and those of its engine: how they begin and end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[4]
MODEL_PROCESS = """
import subprocess, sys, time
from backends.llm.external.descendants import descendants, kill_with_this_process
engine = subprocess.Popen([sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"])
while len(found := descendants()) < 2:
    time.sleep(0.01)
watcher = kill_with_this_process(found)
print(*found, watcher.pid, flush=True)
time.sleep(60)
"""  # noqa: E501


PREPARED = """
import locale, multiprocessing.spawn, pathlib, sys
sys.executable = ""
from backends.llm.external.process import prepare_process
assert locale.getencoding() != "UTF-8"
prepare_process()
assert pathlib.Path(sys.argv[1]).read_text() == chr(233)
print(sys.executable, multiprocessing.spawn.get_executable().decode())
"""
ENDED = """
import time
from backends.llm.external.process import end_process_soon
end_process_soon(0.1)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_an_engines_processes_end_with_a_killed_model() -> None:
    model = subprocess.Popen([sys.executable, "-c", MODEL_PROCESS], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert model.stdout is not None
    pids = [int(pid) for pid in model.stdout.readline().split()]
    try:
        assert len(pids) == 3 and all(map(is_running, pids))
    finally:
        os.kill(model.pid, signal.SIGKILL)
        model.communicate()
    end = time.monotonic() + 10
    while any(map(is_running, pids)):
        assert time.monotonic() < end, pids
        time.sleep(0.01)


def test_a_process_without_a_locale_reads_utf_8_and_starts_processes_of_python(tmp_path: Path) -> None:
    """Triton's stub has neither a locale nor Python as its program."""
    text = tmp_path / "text"
    text.write_bytes("é".encode())
    command = [sys.executable, "-X", "utf8=0", "-c", PREPARED, str(text)]
    done = subprocess.run(command, cwd=ROOT, env={"LC_ALL": "C"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(Path(sys.prefix) / "bin" / "python3")] * 2


def test_a_process_whose_engine_has_died_ends() -> None:
    assert subprocess.run([sys.executable, "-c", ENDED], cwd=ROOT, timeout=30).returncode == 1
