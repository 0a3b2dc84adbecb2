"""A gateway whose event loop is blocked logs its stack and ends itself, is restarted, and obeys SIGTERM."""

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.observability import watchdog
from tritonic.gateway_process import GatewayProcess
from tritonic.ports import free_ports
from tritonic.supervisor import SupervisedComponent, supervise

COMMAND = (sys.executable, "-m", "tests.supervision.blocking_gateway")
BLOCKING_WAYS = ["c", "python", "sleep", "thread"]


@contextlib.contextmanager
def gateway(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, timeout: float = 1.0, workers: int = 1, probed: float = 60.0
) -> Iterator[GatewayProcess]:
    """Run a gateway in processes of its own.

    `timeout` is its own hang timeout, `probed` the supervisor's, both in seconds.
    """
    monkeypatch.setenv("TRITONIC_HANG_TIMEOUT", str(timeout))
    (port,) = free_ports(1)
    process = GatewayProcess(
        "127.0.0.1", port, "127.0.0.1:9", folder / "gateway.log", COMMAND, workers=workers, hang_timeout=probed
    )
    process.start()
    try:
        process.wait_live()
        time.sleep(1.2)  # the event loop has its first heartbeat after a second
        yield process
    finally:
        process.stop()


def block_gateway(process: GatewayProcess, how: str, seconds: float = 600) -> threading.Thread:
    """Send the request that blocks the event loop, in a thread; nobody reads the answer."""

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(f"{process.url}/tests/hold/{how}?seconds={seconds}", content=b"x" * 1000, timeout=60)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread


def until(check: Callable[[], object], seconds: float) -> float:
    """Wait until `check` is true, `seconds` at most; return the seconds that it took."""
    began = time.monotonic()
    while not check():
        assert time.monotonic() - began < seconds, "it took too long"
        time.sleep(0.02)
    return time.monotonic() - began


def wait_until_blocked(folder: Path) -> None:
    """Return when the request that blocks the event loop has reached the gateway."""
    until(lambda: "blocking now" in log(folder), 60)


def log(folder: Path) -> str:
    return (folder / "gateway.log").read_text()


@contextlib.contextmanager
def supervised(process: GatewayProcess) -> Iterator[list[str]]:
    """Supervise it as `up` does; yield the list of the supervisor's reports."""
    messages: list[str] = []
    stopping = threading.Event()
    thread = threading.Thread(target=supervise, args=([SupervisedComponent(process, messages.append)], stopping))
    thread.start()
    try:
        yield messages
    finally:
        stopping.set()
        thread.join(30)


@pytest.mark.parametrize("how", BLOCKING_WAYS)
def test_a_blocked_gateway_ends_itself_and_logs_its_stack(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gateway(tmp_path, monkeypatch) as process:
        block_gateway(process, how)
        assert until(lambda: process.poll() is not None, 60) >= 0.9
        assert process.poll() == watchdog.EXIT_STATUS
        text = log(tmp_path)
    function = {"c": "_hold_gil", "python": "_burn_cpu", "thread": "_hold_gil", "sleep": "hold"}[how]
    assert re.search(rf"blocking_gateway.py\", line \d+ in {function}\b", text), text[-3000:]
    if how == "sleep":
        assert '"body_bytes": 1000' in text and "the event loop is blocked" in text


def test_a_gateway_that_was_stopped_and_continues_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway(tmp_path, monkeypatch, timeout=2) as process:
        os.kill(process.child.pid, signal.SIGSTOP)
        time.sleep(4)
        os.kill(process.child.pid, signal.SIGCONT)
        until(process.is_live, 30)
        assert process.poll() is None


def test_the_watchdog_can_be_turned_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway(tmp_path, monkeypatch, timeout=0) as process:
        block_gateway(process, "python", 2.5).join(60)
        until(process.is_live, 30)
        assert process.poll() is None


def test_a_blocked_gateway_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway(tmp_path, monkeypatch) as process, supervised(process) as messages:
        first = process.child.pid
        block_gateway(process, "c")
        until(lambda: len(messages) >= 2, 30)
        assert process.is_live() and process.child.pid != first
    assert messages[0] == (
        "The gateway did not answer and was killed; its log says where it stood; it is started again in 1 s."
    )
    assert messages[1].startswith("The gateway is back")


@pytest.mark.parametrize("signals", ["heard", "ignored"])
def test_a_gateway_that_does_not_answer_is_replaced(
    signals: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it does not end itself: its own watchdog is off, or the process is stopped (SIGSTOP)."""
    with gateway(tmp_path, monkeypatch, timeout=0, probed=1.0) as process, supervised(process) as messages:
        first = process.child.pid
        if signals == "heard":
            block_gateway(process, "c")
        else:
            os.kill(first, signal.SIGSTOP)
        until(lambda: messages and messages[-1].startswith("The gateway is back"), 60)
        assert process.is_live() and process.child.pid != first
    if signals == "heard":
        assert re.search(r"blocking_gateway.py\", line \d+ in _hold_gil\b", log(tmp_path))
        assert "did not answer and was killed" in messages[0]
    else:
        assert re.fullmatch(r"The gateway has not answered for \d+ s; it is ended and started again\.", messages[0])
        assert "was killed by signal 9" in messages[1], "at once, without the grace that a stop gives"


@pytest.mark.parametrize("how", ["c", "thread"])
def test_a_blocked_gateway_ends_on_sigterm(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No signal handler runs: the watchdog ends the process, as its exit status says."""
    with gateway(tmp_path, monkeypatch, timeout=2) as process:
        block_gateway(process, how)
        wait_until_blocked(tmp_path)
        os.kill(process.child.pid, signal.SIGTERM)
        until(lambda: process.poll() is not None, 60)
        assert process.poll() == watchdog.EXIT_STATUS


def test_a_gateway_that_does_not_shut_down_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTS_NEVER_ENDS", "1")
    with gateway(tmp_path, monkeypatch, timeout=0) as process:
        os.kill(process.child.pid, signal.SIGTERM)
        assert until(lambda: process.poll() is not None, 60) > 1.4
        assert process.poll() == watchdog.EXIT_STATUS
        assert "the process did not end in time" in log(tmp_path)


def test_event_loop_holds_of_all_workers_are_in_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def observed(metric: str) -> dict[str, float]:
        found = re.findall(rf'^tritonic_event_loop_{metric}_seconds_bucket{{le="(\S+)"}} (\S+)$', page(), re.M)
        return {bound: float(count) for bound, count in found}

    def page() -> str:
        return httpx.get(f"{process.url}/metrics", timeout=20).text

    with gateway(tmp_path, monkeypatch, workers=2, timeout=10) as process:
        assert observed("held").keys() >= {"0.05", "0.1", "0.25", "+Inf"}, "from the start"
        assert observed("lag").keys() == observed("held").keys()
        before = observed("held")
        for _ in range(2):
            block_gateway(process, "python", 0.6).join(60)

        def new_blocks() -> float:
            """How many more observations lie above 0.1 s; a busy machine may add some of its own."""
            after = observed("held")
            return after["+Inf"] - after["0.1"] - (before["+Inf"] - before["0.1"])

        until(lambda: new_blocks() >= 2, 30)
        until(lambda: log(tmp_path).count("the event loop was held") >= 2, 30)


def test_only_the_blocked_worker_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway(tmp_path, monkeypatch, workers=2) as process:
        before = workers(process)
        block_gateway(process, "c")
        until(lambda: len(workers(process) - before) == 1 and len(workers(process)) == 2, 60)
        assert len(before & workers(process)) == 1
        until(lambda: "worker is gone" in log(tmp_path), 30)
        until(process.is_live, 30)
        assert process.poll() is None
        assert "did not answer and was killed; its log says where it stood" in log(tmp_path)


def test_a_stopped_worker_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway(tmp_path, monkeypatch, workers=2) as process:
        before = workers(process)
        stopped = min(before)
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: len(workers(process) - before) == 1 and stopped not in workers(process), 60)
        assert "worker does not answer" in log(tmp_path)
        assert len(before & workers(process)) == 1
        until(process.is_live, 30)


def test_workers_that_were_stopped_with_their_parent_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gateway(tmp_path, monkeypatch, workers=2, timeout=2) as process:
        before = workers(process)
        everybody = [*before, process.child.pid]
        for each in everybody:
            os.kill(each, signal.SIGSTOP)
        time.sleep(5)
        for each in everybody:
            os.kill(each, signal.SIGCONT)
        time.sleep(1)
        assert workers(process) == before
        until(process.is_live, 30)


def test_a_gateway_with_a_blocked_worker_ends_on_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway(tmp_path, monkeypatch, workers=2, timeout=3) as process:
        block_gateway(process, "c")
        wait_until_blocked(tmp_path)
        os.kill(process.child.pid, signal.SIGTERM)
        until(lambda: process.poll() is not None, 60)
        assert process.poll() == 128 + signal.SIGTERM
        # The worker's watchdog ended it and wrote its stack, before the parent's SIGKILL, which leaves none.
        assert re.search(r"blocking_gateway.py\", line \d+ in _hold_gil\b", log(tmp_path))


def workers(process: GatewayProcess) -> set[int]:
    """Return the process ids of the running workers. A worker may end while they are listed."""
    running = set()
    for child in psutil.Process(process.child.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                running.add(child.pid)
    return running
