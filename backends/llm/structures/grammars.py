"""Where structures are compiled: a queue in front of processes, and those of them that are kept."""

import hashlib
import logging
import math
import os
import selectors
import socket
import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from tokenizers import Tokenizer

from backends.llm.sampling import Structure
from backends.llm.structures.grammar import Grammar, Process, unpacked
from backends.llm.structures.job import Job
from backends.llm.structures.kept import Kept
from backends.llm.structures.limits import Limits
from backends.llm.structures.messages import BEGUN, ORDER, REFUSED, SIZES, TAKEN, packet_size
from backends.llm.structures.starting import ForkServer
from backends.serving.errors import EngineFailed, GenerationError, InvalidValue, Overloaded

_log = logging.getLogger(__name__)

_LESS_URGENT = 10
_REMEMBERED = 256
# Seconds for which a structure that has used up its time is not tried again. Another time the machine may be less busy.
_AGAIN = 60.0
_TRIES = 3
# Seconds between two looks at the memory of the processes, while there are so many that it matters.
_LOOK = 1.0


class Grammars:
    """Compiles structures for one tokenizer, each in a process of its own, and keeps the processes used last.

    A structure that is quick is compiled in the order of arrival; one that takes longer begins again behind all others
    that take long. All methods may be called from any thread.
    """

    def __init__(
        self, tokenizer: Tokenizer, vocab_size: int, eos: frozenset[int], limits: Limits | None = None
    ) -> None:
        """Raises `ValueError` for a tokenizer that the library cannot read; takes half a second for 50,000 tokens."""
        self._vocab_size = vocab_size
        self._limits = limits or Limits()
        self._server = ForkServer(tokenizer, vocab_size, eos, self._limits)
        self._at_once = max(1, (os.cpu_count() or 1) // 2)
        # Guards what follows. `Grammar.__del__` may come in the middle of anything, and so never takes it.
        self._lock = threading.Lock()
        self._kept = Kept(self._limits)
        # Until when, by the monotonic clock, and why.
        self._refused: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._long: OrderedDict[bytes, None] = OrderedDict()
        self._jobs: dict[bytes, Job] = {}
        self._quick: deque[Job] = deque()
        self._patient: deque[Job] = deque()
        self._running: dict[socket.socket, Job] = {}
        self._closed = False
        self._released: deque[Process] = deque()
        self._selector = selectors.DefaultSelector()
        self._bell, self._ring = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ring.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="llm-grammars", daemon=True)
        self._thread.start()

    def compile(self, structure: Structure) -> "Future[Grammar]":
        """Have a structure compiled; returns at once.

        The future fails with `InvalidValue` and the library's reason, or with `Overloaded`; it may be cancelled.
        """
        future: Future[Grammar] = Future()
        key = hashlib.sha256(f"{structure.kind}\n{structure.text}".encode()).digest()
        with self._lock:
            outcome = self._known(key)
            if outcome is None:
                job = self._jobs.get(key)
                if job is None:
                    job = self._jobs[key] = Job(key, structure, patient=key in self._long)
                    (self._patient if job.patient else self._quick).append(job)
                job.futures.append(future)
        if isinstance(outcome, GenerationError):
            future.set_exception(outcome)
        elif outcome is not None:
            future.set_result(outcome)
        else:
            self._wake()
        return future

    def close(self) -> None:
        """End the thread and all processes; what waits fails with `EngineFailed`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake()
        self._thread.join()

    def _known(self, key: bytes) -> "Grammar | GenerationError | None":
        if self._closed:
            return EngineFailed("The model is being unloaded.")
        if process := self._kept.get(key):
            return self._hold(process)
        until, why = self._refused.get(key, (0.0, ""))
        if time.monotonic() < until:
            self._refused.move_to_end(key)
            return _refusal(why)
        if key in self._long and key not in self._jobs and len(self._patient) >= self._limits.waiting:
            return self._overloaded()
        return None

    def _hold(self, process: Process) -> Grammar:
        process.users += 1
        return Grammar(process, self._vocab_size, self._release)

    def _release(self, process: Process) -> None:
        self._released.append(process)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # it is rung already, or closed
            self._ring.send(b"!")

    def _run(self) -> None:
        try:
            while not self._closed:
                with self._lock:
                    self._let_go()
                    broken = self._start_jobs()
                for job, error in broken:
                    job.fail(error)
                for key, _ in self._selector.select(self._pause()):
                    if key.fileobj is self._bell:
                        self._bell.recv(64)
                    else:
                        assert isinstance(key.fileobj, socket.socket)
                        self._hear(key.fileobj)
        except Exception:
            _log.exception("Structures cannot be compiled any more.")
        finally:
            self._end()

    def _pause(self) -> float | None:
        """Until memory is looked at again; None where few processes are in use."""
        return _LOOK if self._kept.may_be_large() and self._kept.in_use() else None

    def _let_go(self) -> None:
        """Count what is no longer in use, and end what is too much."""
        while self._released:
            self._released.popleft().users -= 1
        for process in self._kept.trim(len(self._running) + bool(self._quick or self._patient)):
            self._close(process.channel)

    def _has_place(self) -> bool:
        return len(self._kept) + len(self._running) < self._limits.processes

    def _close(self, channel: socket.socket) -> None:
        """Close the channel to a process, which ends with the last answer that has it."""
        self._selector.unregister(channel)
        channel.close()

    def _start_jobs(self) -> list[tuple[Job, GenerationError]]:
        """Start what there is room for: several that are quick, and one that is not. Returns what could not be."""
        broken: list[tuple[Job, GenerationError]] = []
        for patient, queue, most in ((False, self._quick, self._at_once), (True, self._patient, 1)):
            while queue and self._has_place():
                if sum(job.patient is patient for job in self._running.values()) >= most:
                    break
                job = queue.popleft()
                job.futures = [future for future in job.futures if not future.cancelled()]
                if job.futures:
                    try:
                        self._start(job)
                        continue
                    except (OSError, ValueError) as error:
                        _log.exception("A process for a structure cannot be started.")
                        broken.append((job, EngineFailed(f"The structure cannot be compiled: {error}")))
                del self._jobs[job.key]
        return broken

    def _start(self, job: Job) -> None:
        limits = self._limits
        job.tries += 1
        job.pid = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        text = os.memfd_create("structure")
        try:
            with open(text, "wb", closefd=False) as file:
                file.write(job.structure.text.encode())
            seconds, niceness = (limits.compile, _LESS_URGENT) if job.patient else (limits.quick, 0)
            packet = ORDER.pack(job.structure.kind.encode(), seconds, niceness)
            try:
                self._server.order(packet, [theirs.fileno(), text])
            except OSError:
                _log.exception("The fork server has died, and is started again.")
                self._server.restart()
                self._server.order(packet, [theirs.fileno(), text])
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(text)
            theirs.close()
        self._running[ours] = job
        self._selector.register(ours, selectors.EVENT_READ)

    def _hear(self, channel: socket.socket) -> None:
        """Take what a process says, or that it has ended."""
        try:
            packet = channel.recv(packet_size(self._vocab_size), socket.MSG_DONTWAIT)
        except OSError:
            packet = b""
        kind, rest = packet[:1], packet[1:]
        with self._lock:
            job = self._running.get(channel)
            if job is None:  # a process that was kept
                self._kept.remove(channel)
                self._close(channel)
                return
            if kind == BEGUN:
                job.pid, job.begun_at = SIZES.unpack(rest)
                return
            del self._running[channel]
            error = None
            if kind == TAKEN:
                process = Process(channel, job.pid, job.begun_at, unpacked(rest, self._vocab_size))
                self._kept.add(job.key, process)
                if job.patient:
                    _remember(self._long, job.key, None)
                grammars = [self._hold(process) for _ in job.futures]
                del self._jobs[job.key]
            else:
                self._close(channel)
                error = self._failure(job, rest if kind == REFUSED else None)
                if error is None:
                    return
                del self._jobs[job.key]
        if error is not None:
            job.fail(error)
            return
        job.succeed(grammars)

    def _failure(self, job: Job, reason: bytes | None) -> GenerationError | None:
        """Why a job has failed; None where it is tried again."""
        limits = self._limits
        if reason is None and not job.pid:
            if job.tries < _TRIES:
                (self._patient if job.patient else self._quick).appendleft(job)
                return None
            return Overloaded("No process could be started for this structure; try again later.")
        if reason is None and not job.patient:
            _remember(self._long, job.key, None)
            if len(self._patient) >= limits.waiting:
                return self._overloaded()
            job.patient = True
            self._patient.append(job)
            return None
        if reason is None:
            until = time.monotonic() + _AGAIN
            why = f"it takes more than {limits.compile:g} s or {limits.memory // 2**20} MB to compile."
        else:
            until, why = math.inf, reason.decode(errors="replace")
        _remember(self._refused, job.key, (until, why))
        return _refusal(why)

    def _overloaded(self) -> Overloaded:
        return Overloaded(f"{len(self._patient)} structures that take long to compile wait already; try again later.")

    def _end(self) -> None:
        with self._lock:
            self._closed = True
            jobs = list(self._jobs.values())
            self._jobs.clear()
            for process in self._kept.clear():
                process.channel.close()
        for channel in self._running:
            channel.close()
        self._server.close()
        self._selector.close()
        self._bell.close()
        self._ring.close()
        for job in jobs:
            job.fail(EngineFailed("The model is being unloaded."))


def _remember(known: OrderedDict[bytes, Any], key: bytes, what: object) -> None:
    known[key] = what
    if len(known) > _REMEMBERED:
        known.popitem(last=False)


def _refusal(why: str) -> InvalidValue:
    return InvalidValue(f"This cannot be enforced: {why}", "structured_outputs")
