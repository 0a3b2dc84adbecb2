"""Several processes that answer at one port, and the one that looks after them.

Each worker has a listening socket of its own, all bound to the same address (SO_REUSEPORT), so that the kernel deals
connections out evenly; docs/decisions/0006-server-and-workers.md says what was measured. The keeper of the workers
holds all these sockets too: connections that come while a worker is being replaced wait, and are not lost.

The keeper imports the gateway and then forks, so that workers share its memory and are there within a moment. It runs
no thread and no loop, for those do not survive a fork.
"""

import fcntl
import gc
import mmap
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from gateway.crew import Crew, prepare
from gateway.observability import hang
from gateway.settings import Settings
from gateway.telemetry import configure_logging
from tritonic.backoff import Backoff
from tritonic.child import describe_exit

Beaten = Callable[[float], None]
"""Is told the monotonic time whenever the event loop of a worker runs (`gateway.observability.event_loop`)."""
Run = Callable[[Settings, Crew, socket.socket, Callable[[], None], Beaten], None]
"""Serves as one worker at a socket until SIGTERM; calls the first function as soon as it does, and the other again and
again from then on."""

PATIENCE = 13.0
"""Seconds from SIGTERM to SIGKILL: a worker lets answers finish for 10 s, then closes what it holds.

Less than whoever keeps the keeper waits for it, which is 15 s under `up`.
"""
_HEALTHY = 10.0
_LAST_WORDS = 2.0
"""Seconds for a worker that hangs to write where it stands."""
_MEMORY = Path("/dev/shm")
_PREFIX = "tritonic-workers-"
_YOUNG = 60.0
"""Seconds for which a folder may be without a lock because its keeper has just made it."""
_STOPPING = {signal.SIGTERM, signal.SIGINT}
_AWAITED = {*_STOPPING, signal.SIGCHLD}


@dataclass(slots=True)
class _Worker:
    """A place among the workers, and who has it."""

    number: int
    listening: socket.socket
    pid: int = 0
    began: float = 0.0
    due: float = 0.0
    """When it is to be started, where it does not run."""
    beat: float = 0.0
    """The last beat of its event loop that was seen."""
    silent: float = 0.0
    """Seconds for which no other was seen."""
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.5, limit=8.0, healthy_after=_HEALTHY))


class Workers:
    """Keeps `len(listening)` workers running."""

    def __init__(self, settings: Settings, listening: list[socket.socket], folder: Path, run: Run) -> None:
        self._settings = settings
        self._folder = folder
        self._run = run
        self._workers = [_Worker(number, each) for number, each in enumerate(listening)]
        self._started = mmap.mmap(-1, len(listening))  # shared with the workers
        """A byte for each worker, written by it: whether it has ever served."""
        self._beats = memoryview(mmap.mmap(-1, 8 * len(listening))).cast("d")
        """When the event loop of each ran last, written by it, too; 0 before it has."""
        self._look_seconds = min(2.0, settings.hang_timeout / 4) if settings.hang_timeout else 60.0
        self._looked = time.monotonic()
        self._lifeline = os.pipe()
        """The keeper holds one end and says nothing; when it is gone, the workers read that."""
        self._log = structlog.get_logger("gateway.workers")

    def keep(self) -> int:
        """Look after the workers until SIGTERM or SIGINT, and until all have ended.

        Returns the signal; 0 where they have ended without any of them ever having served.
        """
        for worker in self._workers:
            self._start(worker)
        while True:
            missing = [worker.due - time.monotonic() for worker in self._workers if not worker.pid]
            # Until one serves, none is replaced: what ends all of them would end them again.
            if number := _awaited(min(missing, default=self._look_seconds) if self._have_served else 0.2):
                self._end()
                return number
            for worker, status in self._ended():
                self._missed(worker, status)
            self._look()
            if self._have_served:
                for worker in self._workers:
                    if not worker.pid and time.monotonic() >= worker.due:
                        self._start(worker)
            elif not self._are_running:
                return 0

    @property
    def _have_served(self) -> bool:
        return any(self._started[:])

    @property
    def _are_running(self) -> bool:
        return any(worker.pid for worker in self._workers)

    def _start(self, worker: _Worker) -> None:
        prepare(self._folder, worker.number)
        worker.began = time.monotonic()
        self._beats[worker.number] = worker.beat = worker.silent = 0.0
        sys.stdout.flush()
        sys.stderr.flush()
        worker.pid = os.fork()
        if worker.pid == 0:
            self._become(worker)
        self._log.info("worker started", worker=worker.number, pid=worker.pid)

    def _become(self, worker: _Worker) -> None:
        """Be the worker, to the end of this process."""
        status = 1
        try:
            reading, writing = self._lifeline
            os.close(writing)
            for other in self._workers:
                if other is not worker:
                    other.listening.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
            crew = Crew(self._folder, worker.number, len(self._workers))
            threading.Thread(target=_follow, args=(reading, crew), name="lifeline", daemon=True).start()
            self._run(
                self._settings,
                crew,
                worker.listening,
                lambda: self._served(worker),
                lambda now: self._beats.__setitem__(worker.number, now),
            )
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            self._log.exception("worker failed")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _served(self, worker: _Worker) -> None:
        self._started[worker.number] = 1

    def _look(self) -> None:
        """End workers whose event loop does not run. They do so themselves, unless what holds them keeps that too.

        What counts is how often it was looked: where all was stopped for a while, nobody hangs.
        """
        now = time.monotonic()
        passed = min(now - self._looked, 2 * self._look_seconds)
        self._looked = now
        patience = self._settings.hang_timeout
        for worker in self._workers:
            beat = self._beats[worker.number]
            if not patience or not worker.pid or not beat or beat != worker.beat:
                worker.beat, worker.silent = beat, 0.0
                continue
            before, worker.silent = worker.silent, worker.silent + passed
            if worker.silent >= patience + _LAST_WORDS:
                os.kill(worker.pid, signal.SIGKILL)
            elif worker.silent >= patience > before:
                self._log.error("worker does not answer", worker=worker.number, pid=worker.pid, seconds=patience)
                os.kill(worker.pid, hang.SIGNAL)

    def _ended(self) -> Iterator[tuple[_Worker, int]]:
        """The workers that have ended meanwhile, and how: an exit status, or 128 + the signal.

        Whatever else has ended is waited for too: the first process of a container has what killed workers left.
        """
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                for worker in self._workers:
                    if worker.pid == pid:
                        worker.pid = 0
                        prepare(self._folder, worker.number)  # nothing is in its hands any more
                        yield worker, os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)

    def _missed(self, worker: _Worker, status: int) -> None:
        """Say that a worker is gone, and when it is replaced: at once, where it had served for a while."""
        lived = time.monotonic() - worker.began
        delay = 0.0 if lived >= _HEALTHY else worker.backoff.delay(lived)
        worker.due = time.monotonic() + delay
        self._log.error("worker is gone", worker=worker.number, it=describe_exit(status), replaced_in_seconds=delay)

    def _end(self) -> None:
        """Let all workers finish, and end those that do not."""
        self._log.info("workers are ending")
        Crew(self._folder).end()
        for worker in self._workers:
            worker.listening.close()  # who comes now is to be refused, not to wait
        for number, after in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + after
            for worker in self._workers:
                if worker.pid:
                    os.kill(worker.pid, number)
            while (left := deadline - time.monotonic()) > 0:
                for _ in self._ended():
                    pass
                if not self._are_running:
                    return
                _awaited(left)


def _awaited(seconds: float) -> int:
    """Wait for a signal; the number of one that asks to stop, else 0."""
    found = signal.sigtimedwait(_AWAITED, max(seconds, 0.0))
    return found.si_signo if found is not None and found.si_signo in _STOPPING else 0


def _follow(lifeline: int, crew: Crew) -> None:
    """End this worker when its keeper is gone, however that happened."""
    os.read(lifeline, 1)
    crew.end()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder in memory, where there is one; those of keepers that were killed are removed."""
    within = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    for old in within.glob(f"{_PREFIX}*"):
        with suppress(OSError), (old / "alive").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - (old / "alive").stat().st_mtime > _YOUNG:
                shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=within) as made, (Path(made) / "alive").open("w") as alive:
        # Workers inherit the lock: it is free when the last of all is gone.
        fcntl.flock(alive, fcntl.LOCK_EX)
        yield Path(made)


def keep_workers(settings: Settings, bound: socket.socket, run: Run) -> int:
    """Run `settings.workers` workers where `bound` listens, which is closed. Returns as `Workers.keep` does."""
    configure_logging(settings.log_format, settings.log_level)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    try:
        with ExitStack() as stack:
            with bound:
                listening = [stack.enter_context(_beside(bound)) for _ in range(settings.workers)]
            folder = stack.enter_context(_folder())
            gc.collect()
            gc.freeze()  # what is there already stays where it is, in memory that all share
            return Workers(settings, listening, folder, run).keep()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _beside(bound: socket.socket) -> socket.socket:
    """Another socket that listens at the same address. Until now nobody else could have."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    another = socket.socket(bound.family, socket.SOCK_STREAM)
    another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    another.bind(bound.getsockname())
    another.listen(2048)
    return another
