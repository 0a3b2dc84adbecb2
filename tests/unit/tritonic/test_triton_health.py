"""What is seen of a Triton that runs and does not work."""

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


def looks(watch: TritonHealth, count: int) -> list[str | None]:
    return [watch.fault() for _ in range(count)]


def test_a_server_that_answers_is_well(models: Models, processes: dict[int, str]) -> None:
    assert looks(TritonHealth(1, models), 100) == [None] * 100  # type: ignore[arg-type]


def test_a_server_that_does_not_answer_hangs(models: Models, processes: dict[int, str]) -> None:
    watch = TritonHealth(1, models)  # type: ignore[arg-type]
    looks(watch, 3)
    models.silent = True
    looks(watch, 1)  # the last question is answered, and the next is asked
    assert looks(watch, triton_health.MAX_SILENT_CHECKS - 1) == [None] * (triton_health.MAX_SILENT_CHECKS - 1)
    assert watch.fault() == "has not answered for 15 s"


def test_a_server_that_cannot_be_reached_hangs_too(models: Models, processes: dict[int, str]) -> None:
    watch = TritonHealth(1, models)  # type: ignore[arg-type]
    models.error = ConnectionError()
    assert looks(watch, triton_health.MAX_SILENT_CHECKS + 1)[-1] == "has not answered for 15 s"


def test_a_server_that_is_slow_for_a_moment_is_well(models: Models, processes: dict[int, str]) -> None:
    watch = TritonHealth(1, models)  # type: ignore[arg-type]
    for _ in range(5):
        models.silent = True
        assert looks(watch, triton_health.MAX_SILENT_CHECKS) == [None] * triton_health.MAX_SILENT_CHECKS
        models.silent = False
        watch._pending_check = Answer(True, None)
        assert watch.fault() is None


def test_a_process_that_is_stopped_is_lost(
    models: Models, processes: dict[int, str], process: subprocess.Popen[bytes]
) -> None:
    processes[process.pid] = "m"
    watch = TritonHealth(1, models)  # type: ignore[arg-type]
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert looks(watch, triton_health.MAX_STOPPED_CHECKS - 1) == [None] * (triton_health.MAX_STOPPED_CHECKS - 1)
    assert watch.fault() == "has a model whose process is stopped, m"


def test_a_process_that_goes_on_in_time_is_well(
    models: Models, processes: dict[int, str], process: subprocess.Popen[bytes]
) -> None:
    processes[process.pid] = "m"
    watch = TritonHealth(1, models)  # type: ignore[arg-type]
    for _ in range(3):
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert set(looks(watch, triton_health.MAX_STOPPED_CHECKS - 1)) == {None}
        os.kill(process.pid, signal.SIGCONT)
        os.waitid(os.P_PID, process.pid, os.WCONTINUED)
        assert watch.fault() is None


def test_a_lost_process_is_not_forgotten_while_the_server_does_not_say_what_it_holds(
    models: Models, processes: dict[int, str]
) -> None:
    processes[7] = "m"
    watch = TritonHealth(1, models)  # type: ignore[arg-type]
    del processes[7]
    models.index_error = True
    assert looks(watch, 3) == [None] * 3
    models.index_error = False
    assert watch.fault() == "lost the process of its model m"


def test_a_model_that_was_unloaded_or_loaded_again_is_not_lost(models: Models, processes: dict[int, str]) -> None:
    processes[7] = "m"
    watch = TritonHealth(1, models)  # type: ignore[arg-type]
    processes[8] = processes.pop(7)  # loaded again
    assert watch.fault() is None
    processes.clear()
    models.ready = []  # unloaded
    assert looks(watch, 3) == [None] * 3
