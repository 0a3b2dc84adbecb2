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

from gateway.observability import watchdog
from gateway.observability.telemetry import configure_logging
from gateway.settings import Settings
from gateway.worker_context import WorkerContext, prepare_metrics_files
from tritonic.backoff import Backoff
from tritonic.child import describe_exit

OnHeartbeat = Callable[[float], None]
"""Is told the monotonic time whenever the event loop of a worker runs (`gateway.observability.event_loop`)."""
RunWorker = Callable[[Settings, WorkerContext, socket.socket, Callable[[], None], OnHeartbeat], None]
"""Serves as one worker at a socket until SIGTERM; calls the first function as soon as it does, and the other again and
again from then on."""

GRACE_SECONDS = 13.0
"""Seconds from SIGTERM to SIGKILL: a worker lets answers finish for 10 s, then closes what it holds.

Less than whoever keeps the keeper waits for it, which is 15 s under `up`.
"""
_HEALTHY_SECONDS = 10.0
_STACK_DUMP_SECONDS = 2.0
"""Seconds for a worker that hangs to write where it stands."""
_SHARED_MEMORY = Path("/dev/shm")
_FOLDER_PREFIX = "tritonic-workers-"
_MIN_AGE_SECONDS = 60.0
"""Seconds for which a folder may be without a lock because its keeper has just made it."""
_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_AWAITED_SIGNALS = {*_STOP_SIGNALS, signal.SIGCHLD}


@dataclass(slots=True)
class _Worker:
    """A place among the workers, and who has it."""

    number: int
    listener: socket.socket
    pid: int = 0
    started_at: float = 0.0
    restart_at: float = 0.0
    """When it is to be started, where it does not run."""
    last_heartbeat: float = 0.0
    """The last beat of its event loop that was seen."""
    silent_seconds: float = 0.0
    """Seconds for which no other was seen."""
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.5, limit=8.0, healthy_after=_HEALTHY_SECONDS))


class WorkerSupervisor:
    """Keeps `len(listening)` workers running."""

    def __init__(self, settings: Settings, listening: list[socket.socket], folder: Path, run: RunWorker) -> None:
        self._settings = settings
        self._folder = folder
        self._run = run
        self._workers = [_Worker(number, each) for number, each in enumerate(listening)]
        self._has_served = mmap.mmap(-1, len(listening))  # shared with the workers
        """A byte for each worker, written by it: whether it has ever served."""
        self._heartbeats = memoryview(mmap.mmap(-1, 8 * len(listening))).cast("d")
        """When the event loop of each ran last, written by it, too; 0 before it has."""
        self._check_seconds = min(2.0, settings.hang_timeout / 4) if settings.hang_timeout else 60.0
        self._checked_at = time.monotonic()
        self._parent_watch = os.pipe()
        """The keeper holds one end and says nothing; when it is gone, the workers read that."""
        self._log = structlog.get_logger("gateway.workers")

    def run(self) -> int:
        """Look after the workers until SIGTERM or SIGINT, and until all have ended.

        Returns the signal; 0 where they have ended without any of them ever having served.
        """
        for worker in self._workers:
            self._start(worker)
        while True:
            missing = [worker.restart_at - time.monotonic() for worker in self._workers if not worker.pid]
            # Until one serves, none is replaced: what ends all of them would end them again.
            if number := _wait_for_signal(min(missing, default=self._check_seconds) if self._any_served else 0.2):
                self._stop_all()
                return number
            for worker, status in self._reap():
                self._schedule_restart(worker, status)
            self._check_heartbeats()
            if self._any_served:
                for worker in self._workers:
                    if not worker.pid and time.monotonic() >= worker.restart_at:
                        self._start(worker)
            elif not self._any_running:
                return 0

    @property
    def _any_served(self) -> bool:
        return any(self._has_served[:])

    @property
    def _any_running(self) -> bool:
        return any(worker.pid for worker in self._workers)

    def _start(self, worker: _Worker) -> None:
        prepare_metrics_files(self._folder, worker.number)
        worker.started_at = time.monotonic()
        self._heartbeats[worker.number] = worker.last_heartbeat = worker.silent_seconds = 0.0
        sys.stdout.flush()
        sys.stderr.flush()
        worker.pid = os.fork()
        if worker.pid == 0:
            self._run_in_child(worker)
        self._log.info("worker started", worker=worker.number, pid=worker.pid)

    def _run_in_child(self, worker: _Worker) -> None:
        """Be the worker, to the end of this process."""
        status = 1
        try:
            reading, writing = self._parent_watch
            os.close(writing)
            for other in self._workers:
                if other is not worker:
                    other.listener.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED_SIGNALS)
            crew = WorkerContext(self._folder, worker.number, len(self._workers))
            threading.Thread(target=_watch_parent, args=(reading, crew), name="lifeline", daemon=True).start()
            self._run(
                self._settings,
                crew,
                worker.listener,
                lambda: self._mark_served(worker),
                lambda now: self._heartbeats.__setitem__(worker.number, now),
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

    def _mark_served(self, worker: _Worker) -> None:
        self._has_served[worker.number] = 1

    def _check_heartbeats(self) -> None:
        """End workers whose event loop does not run. They do so themselves, unless what holds them keeps that too.

        What counts is how often it was looked: where all was stopped for a while, nobody hangs.
        """
        now = time.monotonic()
        passed = min(now - self._checked_at, 2 * self._check_seconds)
        self._checked_at = now
        patience = self._settings.hang_timeout
        for worker in self._workers:
            beat = self._heartbeats[worker.number]
            if not patience or not worker.pid or not beat or beat != worker.last_heartbeat:
                worker.last_heartbeat, worker.silent_seconds = beat, 0.0
                continue
            before, worker.silent_seconds = worker.silent_seconds, worker.silent_seconds + passed
            if worker.silent_seconds >= patience + _STACK_DUMP_SECONDS:
                os.kill(worker.pid, signal.SIGKILL)
            elif worker.silent_seconds >= patience > before:
                self._log.error("worker does not answer", worker=worker.number, pid=worker.pid, seconds=patience)
                os.kill(worker.pid, watchdog.SIGNAL)

    def _reap(self) -> Iterator[tuple[_Worker, int]]:
        """The workers that have ended meanwhile, and how: an exit status, or 128 + the signal.

        Whatever else has ended is waited for too: the first process of a container has what killed workers left.
        """
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                for worker in self._workers:
                    if worker.pid == pid:
                        worker.pid = 0
                        prepare_metrics_files(self._folder, worker.number)  # nothing is in its hands any more
                        yield worker, os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)

    def _schedule_restart(self, worker: _Worker, status: int) -> None:
        """Say that a worker is gone, and when it is replaced: at once, where it had served for a while."""
        lived = time.monotonic() - worker.started_at
        delay = 0.0 if lived >= _HEALTHY_SECONDS else worker.backoff.delay(lived)
        worker.restart_at = time.monotonic() + delay
        self._log.error("worker is gone", worker=worker.number, it=describe_exit(status), replaced_in_seconds=delay)

    def _stop_all(self) -> None:
        """Let all workers finish, and end those that do not."""
        self._log.info("workers are ending")
        WorkerContext(self._folder).announce_shutdown()
        for worker in self._workers:
            worker.listener.close()  # who comes now is to be refused, not to wait
        for number, after in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + after
            for worker in self._workers:
                if worker.pid:
                    os.kill(worker.pid, number)
            while (left := deadline - time.monotonic()) > 0:
                for _ in self._reap():
                    pass
                if not self._any_running:
                    return
                _wait_for_signal(left)


def _wait_for_signal(seconds: float) -> int:
    """Wait for a signal; the number of one that asks to stop, else 0."""
    found = signal.sigtimedwait(_AWAITED_SIGNALS, max(seconds, 0.0))
    return found.si_signo if found is not None and found.si_signo in _STOP_SIGNALS else 0


def _watch_parent(lifeline: int, crew: WorkerContext) -> None:
    """End this worker when its keeper is gone, however that happened."""
    os.read(lifeline, 1)
    crew.announce_shutdown()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _worker_folder() -> Iterator[Path]:
    """A folder in memory, where there is one; those of keepers that were killed are removed."""
    within = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    for old in within.glob(f"{_FOLDER_PREFIX}*"):
        with suppress(OSError), (old / "alive").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - (old / "alive").stat().st_mtime > _MIN_AGE_SECONDS:
                shutil.rmtree(old)
    with (
        tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX, dir=within) as made,
        (Path(made) / "alive").open("w") as alive,
    ):
        # Workers inherit the lock: it is free when the last of all is gone.
        fcntl.flock(alive, fcntl.LOCK_EX)
        yield Path(made)


def run_workers(settings: Settings, bound: socket.socket, run: RunWorker) -> int:
    """Run `settings.workers` workers where `bound` listens, which is closed. Returns as `Workers.keep` does."""
    configure_logging(settings.log_format, settings.log_level)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED_SIGNALS)
    try:
        with ExitStack() as stack:
            with bound:
                listening = [stack.enter_context(_reuse_port_socket(bound)) for _ in range(settings.workers)]
            folder = stack.enter_context(_worker_folder())
            gc.collect()
            gc.freeze()  # what is there already stays where it is, in memory that all share
            return WorkerSupervisor(settings, listening, folder, run).run()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reuse_port_socket(bound: socket.socket) -> socket.socket:
    """Another socket that listens at the same address. Until now nobody else could have."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    another = socket.socket(bound.family, socket.SOCK_STREAM)
    another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    another.bind(bound.getsockname())
    another.listen(2048)
    return another
