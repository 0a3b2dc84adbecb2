"""Faults of a running Triton: it does not answer, or has lost the process of a model."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tritonic import triton_health
from tritonic.models import ModelState, TritonCallError
from tritonic.triton_health import TritonHealth


class Answer:
    def __init__(self, done: bool, error: Exception | None) -> None:
        self._done, self._error = done, error

    def done(self) -> bool:
        return self._done

    def exception(self) -> Exception | None:
        return self._error


class Models:
    """A server that answers, is silent, or cannot be reached."""

    def __init__(self) -> None:
        self.silent = False
        self.error: Exception | None = None
        self.ready = ["m"]
        self.index_error = False

    def ready_future(self) -> Answer:
        return Answer(not self.silent, self.error)

    def states(self, timeout: float) -> list[ModelState]:
        if self.index_error:
            raise TritonCallError("away")
        return [ModelState(name, "1", "READY", "") for name in self.ready]


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The processes of models, by their ids."""
    running: dict[int, str] = {}
    monkeypatch.setattr(TritonHealth, "_processes", lambda _: dict(running))
    return running


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield child
    child.kill()
    child.wait()


def check_repeatedly(health: TritonHealth, count: int) -> list[str | None]:
    return [health.fault() for _ in range(count)]


def test_an_answering_server_is_healthy(models: Models, processes: dict[int, str]) -> None:
    assert check_repeatedly(TritonHealth(1, models), 100) == [None] * 100  # type: ignore[arg-type]


def test_a_silent_server_is_reported(models: Models, processes: dict[int, str]) -> None:
    health = TritonHealth(1, models)  # type: ignore[arg-type]
    check_repeatedly(health, 3)
    models.silent = True
    check_repeatedly(health, 1)  # the pending check is answered, and the next one starts
    assert check_repeatedly(health, triton_health.MAX_SILENT_CHECKS - 1) == [None] * (
        triton_health.MAX_SILENT_CHECKS - 1
    )
    assert health.fault() == "has not answered for 15 s"


def test_an_unreachable_server_is_reported(models: Models, processes: dict[int, str]) -> None:
    health = TritonHealth(1, models)  # type: ignore[arg-type]
    models.error = ConnectionError()
    assert check_repeatedly(health, triton_health.MAX_SILENT_CHECKS + 1)[-1] == "has not answered for 15 s"


def test_a_briefly_slow_server_is_healthy(models: Models, processes: dict[int, str]) -> None:
    health = TritonHealth(1, models)  # type: ignore[arg-type]
    for _ in range(5):
        models.silent = True
        assert check_repeatedly(health, triton_health.MAX_SILENT_CHECKS) == [None] * triton_health.MAX_SILENT_CHECKS
        models.silent = False
        health._pending_check = Answer(True, None)
        assert health.fault() is None


def test_a_stopped_model_process_is_reported(
    models: Models, processes: dict[int, str], process: subprocess.Popen[bytes]
) -> None:
    processes[process.pid] = "m"
    health = TritonHealth(1, models)  # type: ignore[arg-type]
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert check_repeatedly(health, triton_health.MAX_STOPPED_CHECKS - 1) == [None] * (
        triton_health.MAX_STOPPED_CHECKS - 1
    )
    assert health.fault() == "has a model whose process is stopped, m"


def test_a_model_process_that_continues_in_time_is_healthy(
    models: Models, processes: dict[int, str], process: subprocess.Popen[bytes]
) -> None:
    processes[process.pid] = "m"
    health = TritonHealth(1, models)  # type: ignore[arg-type]
    for _ in range(3):
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert set(check_repeatedly(health, triton_health.MAX_STOPPED_CHECKS - 1)) == {None}
        os.kill(process.pid, signal.SIGCONT)
        os.waitid(os.P_PID, process.pid, os.WCONTINUED)
        assert health.fault() is None


def test_a_lost_process_is_reported_when_the_model_index_is_back(models: Models, processes: dict[int, str]) -> None:
    processes[7] = "m"
    health = TritonHealth(1, models)  # type: ignore[arg-type]
    del processes[7]
    models.index_error = True
    assert check_repeatedly(health, 3) == [None] * 3
    models.index_error = False
    assert health.fault() == "lost the process of its model m"


def test_unloaded_and_reloaded_models_are_not_reported(models: Models, processes: dict[int, str]) -> None:
    processes[7] = "m"
    health = TritonHealth(1, models)  # type: ignore[arg-type]
    processes[8] = processes.pop(7)  # loaded again
    assert health.fault() is None
    processes.clear()
    models.ready = []  # unloaded
    assert check_repeatedly(health, 3) == [None] * 3
