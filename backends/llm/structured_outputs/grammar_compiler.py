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

from tokenizers import Tokenizer

from backends.llm.sampling_params import StructuredOutputsParams
from backends.llm.structured_outputs.compile_job import CompileJob, rejection, remember
from backends.llm.structured_outputs.compiled_grammar import CompiledGrammar, GrammarProcess, unpack_mask
from backends.llm.structured_outputs.fork_server_launcher import ForkServer
from backends.llm.structured_outputs.ipc_messages import (
    COMPILE_REQUEST,
    COMPILED,
    PROCESS_INFO,
    REJECTED,
    STARTED,
    max_packet_bytes,
)
from backends.llm.structured_outputs.limits import Limits
from backends.llm.structured_outputs.process_cache import ProcessCache
from backends.serving.errors import EngineFailed, GenerationError, Overloaded

_log = logging.getLogger(__name__)

_SLOW_JOB_NICENESS = 10
# Seconds for which a structure that has used up its time is not tried again. Another time the machine may be less busy.
_RETRY_SECONDS = 60.0
_MAX_ATTEMPTS = 3
# Seconds between two looks at the memory of the processes, while there are so many that it matters.
_MEMORY_CHECK_SECONDS = 1.0


class GrammarCompiler:
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
        self._fork_server = ForkServer(tokenizer, vocab_size, eos, self._limits)
        self._max_fast_jobs = max(1, (os.cpu_count() or 1) // 2)
        # Guards what follows. `Grammar.__del__` may come in the middle of anything, and so never takes it.
        self._lock = threading.Lock()
        self._processes = ProcessCache(self._limits)
        # Until when, by the monotonic clock, and why.
        self._rejected: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._slow_keys: OrderedDict[bytes, None] = OrderedDict()
        self._jobs: dict[bytes, CompileJob] = {}
        self._fast_queue: deque[CompileJob] = deque()
        self._slow_queue: deque[CompileJob] = deque()
        self._running: dict[socket.socket, CompileJob] = {}
        self._closed = False
        self._released: deque[GrammarProcess] = deque()
        self._selector = selectors.DefaultSelector()
        self._wakeup_receiver, self._wakeup_sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._wakeup_sender.setblocking(False)
        self._selector.register(self._wakeup_receiver, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="llm-grammars", daemon=True)
        self._thread.start()

    def compile(self, structure: StructuredOutputsParams) -> "Future[CompiledGrammar]":
        """Have a structure compiled; returns at once.

        The future fails with `InvalidValue` and the library's reason, or with `Overloaded`; it may be cancelled.
        """
        future: Future[CompiledGrammar] = Future()
        key = hashlib.sha256(f"{structure.kind}\n{structure.text}".encode()).digest()
        with self._lock:
            outcome = self._cached_outcome(key)
            if outcome is None:
                job = self._jobs.get(key)
                if job is None:
                    job = self._jobs[key] = CompileJob(key, structure, is_slow=key in self._slow_keys)
                    (self._slow_queue if job.is_slow else self._fast_queue).append(job)
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

    def _cached_outcome(self, key: bytes) -> "CompiledGrammar | GenerationError | None":
        if self._closed:
            return EngineFailed("The model is being unloaded.")
        if process := self._processes.get(key):
            return self._new_grammar(process)
        until, why = self._rejected.get(key, (0.0, ""))
        if time.monotonic() < until:
            self._rejected.move_to_end(key)
            return rejection(why)
        if key in self._slow_keys and key not in self._jobs and len(self._slow_queue) >= self._limits.max_slow_queue:
            return self._overloaded()
        return None

    def _new_grammar(self, process: GrammarProcess) -> CompiledGrammar:
        process.num_users += 1
        return CompiledGrammar(process, self._vocab_size, self._release)

    def _release(self, process: GrammarProcess) -> None:
        self._released.append(process)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # it is rung already, or closed
            self._wakeup_sender.send(b"!")

    def _run(self) -> None:
        try:
            while not self._closed:
                with self._lock:
                    self._release_and_trim()
                    broken = self._start_jobs()
                for job, error in broken:
                    job.fail(error)
                for key, _ in self._selector.select(self._poll_timeout()):
                    if key.fileobj is self._wakeup_receiver:
                        self._wakeup_receiver.recv(64)
                    else:
                        assert isinstance(key.fileobj, socket.socket)
                        self._receive(key.fileobj)
        except Exception:
            _log.exception("Structures cannot be compiled any more.")
        finally:
            self._shut_down()

    def _poll_timeout(self) -> float | None:
        """Until memory is looked at again; None where few processes are in use."""
        return _MEMORY_CHECK_SECONDS if self._processes.may_exceed_memory() and self._processes.has_users() else None

    def _release_and_trim(self) -> None:
        """Count what is no longer in use, and end what is too much."""
        while self._released:
            self._released.popleft().num_users -= 1
        for process in self._processes.evict(len(self._running) + bool(self._fast_queue or self._slow_queue)):
            self._close(process.channel)

    def _has_capacity(self) -> bool:
        return len(self._processes) + len(self._running) < self._limits.max_processes

    def _close(self, channel: socket.socket) -> None:
        """Close the channel to a process, which ends with the last answer that has it."""
        self._selector.unregister(channel)
        channel.close()

    def _start_jobs(self) -> list[tuple[CompileJob, GenerationError]]:
        """Start what there is room for: several that are quick, and one that is not. Returns what could not be."""
        broken: list[tuple[CompileJob, GenerationError]] = []
        for patient, queue, most in ((False, self._fast_queue, self._max_fast_jobs), (True, self._slow_queue, 1)):
            while queue and self._has_capacity():
                if sum(job.is_slow is patient for job in self._running.values()) >= most:
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

    def _start(self, job: CompileJob) -> None:
        limits = self._limits
        job.num_attempts += 1
        job.pid = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        text = os.memfd_create("structure")
        try:
            with open(text, "wb", closefd=False) as file:
                file.write(job.structure.text.encode())
            seconds, niceness = (
                (limits.compile_seconds, _SLOW_JOB_NICENESS) if job.is_slow else (limits.fast_compile_seconds, 0)
            )
            packet = COMPILE_REQUEST.pack(job.structure.kind.encode(), seconds, niceness)
            try:
                self._fork_server.request_process(packet, [theirs.fileno(), text])
            except OSError:
                _log.exception("The fork server has died, and is started again.")
                self._fork_server.restart()
                self._fork_server.request_process(packet, [theirs.fileno(), text])
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(text)
            theirs.close()
        self._running[ours] = job
        self._selector.register(ours, selectors.EVENT_READ)

    def _receive(self, channel: socket.socket) -> None:
        """Take what a process says, or that it has ended."""
        try:
            packet = channel.recv(max_packet_bytes(self._vocab_size), socket.MSG_DONTWAIT)
        except OSError:
            packet = b""
        kind, rest = packet[:1], packet[1:]
        with self._lock:
            job = self._running.get(channel)
            if job is None:  # a process that was kept
                self._processes.remove(channel)
                self._close(channel)
                return
            if kind == STARTED:
                job.pid, job.initial_bytes = PROCESS_INFO.unpack(rest)
                return
            del self._running[channel]
            error = None
            if kind == COMPILED:
                process = GrammarProcess(channel, job.pid, job.initial_bytes, unpack_mask(rest, self._vocab_size))
                self._processes.add(job.key, process)
                if job.is_slow:
                    remember(self._slow_keys, job.key, None)
                grammars = [self._new_grammar(process) for _ in job.futures]
                del self._jobs[job.key]
            else:
                self._close(channel)
                error = self._failure(job, rest if kind == REJECTED else None)
                if error is None:
                    return
                del self._jobs[job.key]
        if error is not None:
            job.fail(error)
            return
        job.succeed(grammars)

    def _failure(self, job: CompileJob, reason: bytes | None) -> GenerationError | None:
        """Why a job has failed; None where it is tried again."""
        limits = self._limits
        if reason is None and not job.pid:
            if job.num_attempts < _MAX_ATTEMPTS:
                (self._slow_queue if job.is_slow else self._fast_queue).appendleft(job)
                return None
            return Overloaded("No process could be started for this structure; try again later.")
        if reason is None and not job.is_slow:
            remember(self._slow_keys, job.key, None)
            if len(self._slow_queue) >= limits.max_slow_queue:
                return self._overloaded()
            job.is_slow = True
            self._slow_queue.append(job)
            return None
        if reason is None:
            until = time.monotonic() + _RETRY_SECONDS
            why = f"it takes more than {limits.compile_seconds:g} s or {limits.memory_bytes // 2**20} MB to compile."
        else:
            until, why = math.inf, reason.decode(errors="replace")
        remember(self._rejected, job.key, (until, why))
        return rejection(why)

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"{len(self._slow_queue)} structures that take long to compile wait already; try again later."
        )

    def _shut_down(self) -> None:
        with self._lock:
            self._closed = True
            jobs = list(self._jobs.values())
            self._jobs.clear()
            for process in self._processes.clear():
                process.channel.close()
        for channel in self._running:
            channel.close()
        self._fork_server.close()
        self._selector.close()
        self._wakeup_receiver.close()
        self._wakeup_sender.close()
        for job in jobs:
            job.fail(EngineFailed("The model is being unloaded."))
