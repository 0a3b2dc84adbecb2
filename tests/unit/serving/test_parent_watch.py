"""The watch that ends a process after its parent."""

import subprocess
import sys
import time

import psutil

from backends.serving.parent_watch import exit_with_parent

CHILD = """
import time
from backends.serving.parent_watch import exit_with_parent
exit_with_parent(0.05)
print("watching", flush=True)
time.sleep(600)
"""

PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
assert child.stdout.readline() == b"watching\\n"
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_process_ends_when_its_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    try:
        time.sleep(0.3)
        assert child.is_running() and child.ppid() == parent.pid
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 60
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the child outlived its parent"
            time.sleep(0.02)
    except psutil.NoSuchProcess:
        pass
    finally:
        parent.stdout.close()


def test_a_process_keeps_running_while_its_parent_lives():
    exit_codes: list[int] = []
    stopped = exit_with_parent(0.01, exit_codes.append)
    time.sleep(0.1)
    stopped.set()
    assert not exit_codes
