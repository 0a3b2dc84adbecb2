"""Several worker processes that serve one port, and their parent process, which supervises them.

Each worker has a listening socket of its own, bound to the same address (SO_REUSEPORT), so that the kernel spreads
connections evenly; docs/decisions/0006-server-and-workers.md has the measurements. The parent process also holds all
these sockets: connections that arrive while a worker is replaced wait, and are not lost.

The parent imports the gateway and then forks, so that workers share its memory and start within milliseconds. It runs
no thread and no event loop, because neither survives a fork.
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
from gateway.observability.log_format import configure_logging
from gateway.settings import Settings
from gateway.worker_context import WorkerContext, prepare_metrics_files
from tritonic.backoff import Backoff
from tritonic.child import describe_exit

OnHeartbeat = Callable[[float], None]
"""Called with the monotonic time whenever a worker's event loop runs (`gateway.observability.event_loop`)."""
RunWorker = Callable[[Settings, WorkerContext, socket.socket, Callable[[], None], OnHeartbeat], None]
"""Serves as one worker on a socket until SIGTERM. It calls the first function when it serves, and reports heartbeats to
the second from then on."""

GRACE_SECONDS = 13.0
"""Seconds from SIGTERM to SIGKILL. A worker lets responses finish for 10 s, then closes its resources.

It must be less than the grace that the parent itself gets, which is 15 s under `up`.
"""
_HEALTHY_SECONDS = 10.0
"""A worker that ran for so long is replaced without a back-off delay."""
_STACK_DUMP_SECONDS = 2.0
"""Seconds that a hanging worker gets to log its stack."""
_SHARED_MEMORY = Path("/dev/shm")
_FOLDER_PREFIX = "tritonic-workers-"
_MIN_AGE_SECONDS = 60.0
"""A younger folder without a lock is kept: its owner may have just created it."""
_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_AWAITED_SIGNALS = {*_STOP_SIGNALS, signal.SIGCHLD}


@dataclass(slots=True)
class _Worker:
    """A worker's slot: its number and socket, and the process that runs in it now."""

    number: int
    listener: socket.socket
    pid: int = 0
    started_at: float = 0.0
    restart_at: float = 0.0
    """Start time of the next process, on the monotonic clock, while none runs."""
    last_heartbeat: float = 0.0
    """The last heartbeat of its event loop that the parent has seen."""
    silent_seconds: float = 0.0
    """Seconds without a newer heartbeat."""
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.5, limit=8.0, healthy_after=_HEALTHY_SECONDS))


class WorkerSupervisor:
    """The parent process of the workers: keeps one worker running for each socket in `listening`."""

    def __init__(self, settings: Settings, listening: list[socket.socket], folder: Path, run: RunWorker) -> None:
        self._settings = settings
        self._folder = folder
        self._run = run
        self._workers = [_Worker(number, each) for number, each in enumerate(listening)]
        self._has_served = mmap.mmap(-1, len(listening))  # shared with the workers
        """A byte for each worker, which the worker sets to 1 once it serves."""
        self._heartbeats = memoryview(mmap.mmap(-1, 8 * len(listening))).cast("d")
        """The last heartbeat of each worker, which the worker writes; 0 before the first."""
        self._check_seconds = min(2.0, settings.hang_timeout / 4) if settings.hang_timeout else 60.0
        self._checked_at = time.monotonic()
        self._parent_watch = os.pipe()
        """A pipe. The parent holds the writing end and never writes; workers read end-of-file when it is gone."""
        self._log = structlog.get_logger("gateway.workers")

    def run(self) -> int:
        """Supervise the workers until SIGTERM or SIGINT, then stop them all.

        Return the signal, or 0 if all workers ended and none of them has ever served.
        """
        for worker in self._workers:
            self._start(worker)
        while True:
            missing = [worker.restart_at - time.monotonic() for worker in self._workers if not worker.pid]
            # No worker is replaced until one has served: the fault that ended all of them would end new ones too.
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
        """Run the worker in the forked process, and exit it."""
        status = 1
        try:
            reading, writing = self._parent_watch
            os.close(writing)
            for other in self._workers:
                if other is not worker:
                    other.listener.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED_SIGNALS)
            context = WorkerContext(self._folder, worker.number, len(self._workers))
            threading.Thread(target=_watch_parent, args=(reading, context), name="parent-watch", daemon=True).start()
            self._run(
                self._settings,
                context,
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
        """Kill workers whose event loop is blocked and whose own watchdog could not end them.

        At most two check intervals count between two checks: time in which everything was suspended does not.
        """
        now = time.monotonic()
        passed = min(now - self._checked_at, 2 * self._check_seconds)
        self._checked_at = now
        timeout = self._settings.hang_timeout
        for worker in self._workers:
            heartbeat = self._heartbeats[worker.number]
            if not timeout or not worker.pid or not heartbeat or heartbeat != worker.last_heartbeat:
                worker.last_heartbeat, worker.silent_seconds = heartbeat, 0.0
                continue
            before, worker.silent_seconds = worker.silent_seconds, worker.silent_seconds + passed
            if worker.silent_seconds >= timeout + _STACK_DUMP_SECONDS:
                os.kill(worker.pid, signal.SIGKILL)
            elif worker.silent_seconds >= timeout > before:
                self._log.error("worker does not answer", worker=worker.number, pid=worker.pid, seconds=timeout)
                os.kill(worker.pid, watchdog.SIGNAL)

    def _reap(self) -> Iterator[tuple[_Worker, int]]:
        """Reap ended children. Yield each worker among them with its exit status, or 128 + the signal.

        Other children are reaped too: as first process of a container, this one inherits what killed workers left.
        """
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                for worker in self._workers:
                    if worker.pid == pid:
                        worker.pid = 0
                        prepare_metrics_files(self._folder, worker.number)  # resets its gauges of requests in flight
                        yield worker, os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)

    def _schedule_restart(self, worker: _Worker, status: int) -> None:
        """Log that a worker is gone, and schedule the next: at once if it ran long enough, else after a delay."""
        lived = time.monotonic() - worker.started_at
        delay = 0.0 if lived >= _HEALTHY_SECONDS else worker.backoff.delay(lived)
        worker.restart_at = time.monotonic() + delay
        self._log.error("worker is gone", worker=worker.number, it=describe_exit(status), replaced_in_seconds=delay)

    def _stop_all(self) -> None:
        """Send SIGTERM to all workers, and SIGKILL to those that do not end within GRACE_SECONDS."""
        self._log.info("workers are ending")
        WorkerContext(self._folder).announce_shutdown()
        for worker in self._workers:
            worker.listener.close()  # new connections are refused, not queued
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
    """Wait up to `seconds` for a signal. Return the number of a stop signal, else 0."""
    found = signal.sigtimedwait(_AWAITED_SIGNALS, max(seconds, 0.0))
    return found.si_signo if found is not None and found.si_signo in _STOP_SIGNALS else 0


def _watch_parent(pipe: int, context: WorkerContext) -> None:
    """End this worker when its parent process is gone, for whatever reason. `pipe` is the reading end."""
    os.read(pipe, 1)
    context.announce_shutdown()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _worker_folder() -> Iterator[Path]:
    """Yield a new folder, in shared memory if possible. Folders that killed parent processes left are removed."""
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
        # Workers inherit the lock: it is free when the last process is gone.
        fcntl.flock(alive, fcntl.LOCK_EX)
        yield Path(made)


def run_workers(settings: Settings, bound: socket.socket, run: RunWorker) -> int:
    """Run `settings.workers` workers at the address of `bound`, which is closed. Return as `WorkerSupervisor.run`."""
    configure_logging(settings.log_format, settings.log_level)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED_SIGNALS)
    try:
        with ExitStack() as stack:
            with bound:
                listening = [stack.enter_context(_reuse_port_socket(bound)) for _ in range(settings.workers)]
            folder = stack.enter_context(_worker_folder())
            gc.collect()
            gc.freeze()  # workers keep sharing the memory of all present objects
            return WorkerSupervisor(settings, listening, folder, run).run()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reuse_port_socket(bound: socket.socket) -> socket.socket:
    """Return another socket that listens at the address of `bound`. Until now no other process could bind to it."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    another = socket.socket(bound.family, socket.SOCK_STREAM)
    another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    another.bind(bound.getsockname())
    another.listen(2048)
    return another
