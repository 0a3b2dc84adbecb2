"""Compiles structures into grammars, each in a process of its own, and caches the processes.

One thread talks to the fork server and to the processes. It does not know which job is next (`CompileQueue`) or which
process is evicted (`ProcessCache`).
"""

import hashlib
import logging
import os
import selectors
import socket
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress

from tokenizers import Tokenizer

from backends.llm.sampling_params import StructuredOutputsParams
from backends.llm.structured_outputs.compile_job import CompileJob
from backends.llm.structured_outputs.compile_queue import CompileQueue
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
from backends.serving.errors import EngineFailed, GenerationError

_log = logging.getLogger(__name__)

_SLOW_JOB_NICENESS = 10
_MEMORY_CHECK_SECONDS = 1.0
"""Seconds between two checks of the processes' memory, while there are enough of them to exceed its limit."""


class GrammarCompiler:
    """Compiles structures for one tokenizer. All methods may be called from any thread.

    Several fast jobs run at a time, and one slow job at a low priority, so that a structure that takes long to compile
    delays no others.
    """

    def __init__(
        self, tokenizer: Tokenizer, vocab_size: int, eos: frozenset[int], limits: Limits | None = None
    ) -> None:
        """Start the fork server, which takes half a second for 50,000 tokens.

        Raises `ValueError` for a tokenizer that llguidance cannot read.
        """
        self._vocab_size = vocab_size
        self._limits = limits or Limits()
        self._fork_server = ForkServer(tokenizer, vocab_size, eos, self._limits)
        self._max_fast_jobs = max(1, (os.cpu_count() or 1) // 2)
        # Guards the attributes below. `CompiledGrammar.__del__` may run at any point of any code, so it never takes it.
        self._lock = threading.Lock()
        self._processes = ProcessCache(self._limits)
        self._queue = CompileQueue(self._limits)
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
        """Have a structure compiled; return at once.

        The future fails with `InvalidValue` and the library's reason, or with `Overloaded`. It may be cancelled.
        """
        future: Future[CompiledGrammar] = Future()
        key = hashlib.sha256(f"{structure.kind}\n{structure.text}".encode()).digest()
        with self._lock:
            outcome = self._cached_outcome(key)
            if outcome is None:
                self._queue.add(key, structure, future)
        if isinstance(outcome, GenerationError):
            future.set_exception(outcome)
        elif outcome is not None:
            future.set_result(outcome)
        else:
            self._wake()
        return future

    def close(self) -> None:
        """End the thread and all processes; waiting futures fail with `EngineFailed`."""
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
        return self._queue.refusal(key)

    def _new_grammar(self, process: GrammarProcess) -> CompiledGrammar:
        process.num_users += 1
        return CompiledGrammar(process, self._vocab_size, self._release)

    def _release(self, process: GrammarProcess) -> None:
        self._released.append(process)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # a wake-up is pending already, or the compiler is closed
            self._wakeup_sender.send(b"!")

    def _run(self) -> None:
        try:
            while not self._closed:
                with self._lock:
                    self._release_and_trim()
                    failed = self._start_jobs()
                for job, error in failed:
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
        """Return the seconds until the next memory check; None if the processes cannot exceed the limit."""
        return _MEMORY_CHECK_SECONDS if self._processes.may_exceed_memory() and self._processes.has_users() else None

    def _release_and_trim(self) -> None:
        """Update the user counts of released processes, and end the processes that exceed the limits."""
        while self._released:
            self._released.popleft().num_users -= 1
        for process in self._processes.evict(len(self._running) + self._queue.has_waiting):
            self._close(process.channel)

    def _has_capacity(self) -> bool:
        return len(self._processes) + len(self._running) < self._limits.max_processes

    def _close(self, channel: socket.socket) -> None:
        """Close the channel to a process, which ends with the last answer that uses it."""
        self._selector.unregister(channel)
        channel.close()

    def _start_jobs(self) -> list[tuple[CompileJob, GenerationError]]:
        """Start the jobs that there is capacity for. Return those that could not be started, with their errors."""
        failed: list[tuple[CompileJob, GenerationError]] = []
        for slow, max_running in ((False, self._max_fast_jobs), (True, 1)):
            while self._has_capacity() and sum(job.is_slow is slow for job in self._running.values()) < max_running:
                job = self._queue.pop(slow=slow)
                if job is None:
                    break
                try:
                    self._start(job)
                except (OSError, ValueError) as error:
                    _log.exception("A process for a structure cannot be started.")
                    failed.append((job, EngineFailed(f"The structure cannot be compiled: {error}")))
                    self._queue.discard(job)
        return failed

    def _start(self, job: CompileJob) -> None:
        """Have the fork server start the process of a job. Raises `OSError` or `ValueError`."""
        limits = self._limits
        job.num_attempts += 1
        job.pid = 0
        channel, process_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        text_file = os.memfd_create("structure")
        try:
            with open(text_file, "wb", closefd=False) as file:
                file.write(job.structure.text.encode())
            seconds, niceness = (
                (limits.compile_seconds, _SLOW_JOB_NICENESS) if job.is_slow else (limits.fast_compile_seconds, 0)
            )
            packet = COMPILE_REQUEST.pack(job.structure.kind.encode(), seconds, niceness)
            try:
                self._fork_server.request_process(packet, [process_end.fileno(), text_file])
            except OSError:
                _log.exception("The fork server has died, and is started again.")
                self._fork_server.restart()
                self._fork_server.request_process(packet, [process_end.fileno(), text_file])
        except BaseException:
            channel.close()
            raise
        finally:
            os.close(text_file)
            process_end.close()
        self._running[channel] = job
        self._selector.register(channel, selectors.EVENT_READ)

    def _receive(self, channel: socket.socket) -> None:
        """Handle a message from a process, or its end."""
        try:
            packet = channel.recv(max_packet_bytes(self._vocab_size), socket.MSG_DONTWAIT)
        except OSError:
            packet = b""
        kind, rest = packet[:1], packet[1:]
        with self._lock:
            job = self._running.get(channel)
            if job is None:  # a cached process has ended
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
                grammars = [self._new_grammar(process) for _ in job.futures]
                self._queue.succeeded(job)
            else:
                self._close(channel)
                error = self._queue.failed(job, rest if kind == REJECTED else None)
                if error is None:
                    return
        if error is not None:
            job.fail(error)
            return
        job.succeed(grammars)

    def _shut_down(self) -> None:
        with self._lock:
            self._closed = True
            jobs = self._queue.clear()
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
