"""The client of the fork server, a process that forks a child for each file (`gateway.media.decoders` runs in it).

A child decodes one file. Its libraries are loaded before the fork. It has resource limits, a lower priority, no
environment, and no file descriptor but the socket of its job. No data of one file is left for the next.
"""

import asyncio
import itertools
import os
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import orjson
import structlog

import gateway
from gateway.media.decoders.child_process import BYTES, JSON, LENGTH_PREFIX, PIECE_PREFIX, SAMPLES

_ENVIRONMENT = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    "PYTHONPATH": str(Path(gateway.__file__).parents[1]),
    "PYTHONSAFEPATH": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Some interpreters need it to find their own shared library.
    **({"LD_LIBRARY_PATH": os.environ["LD_LIBRARY_PATH"]} if "LD_LIBRARY_PATH" in os.environ else {}),
}
MESSAGE_PREFIX = struct.Struct("!I")
"""Prefix of a message of a stream: its length."""
_CHUNK_BYTES = 256 * 1024
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Most bytes of a message that answers one of a stream."""
_MAX_HEADER_BYTES = 16 * 1024
_MAX_PIECE_BYTES = 1024 * 1024
_MAX_MESSAGE_BYTES = 64 * 1024
_KILL_TIMEOUT_SECONDS = 2.0
"""Seconds within which a killed child must have ended."""


class ForkServerUnavailable(Exception):
    """The fork server could not be started, or ended while it was needed."""


class ResponseTooLarge(Exception):
    """A child announced a response that is longer than allowed."""


@dataclass(frozen=True, slots=True)
class ExitInfo:
    """The end of a child: its wait `status` (as of `os.wait4`), and its CPU time in `seconds`."""

    status: int
    seconds: float


@dataclass(slots=True)
class Job:
    """One file that is being decoded. `exited` is cancelled when the fork server is lost."""

    number: int
    connection: socket.socket
    exited: asyncio.Future[ExitInfo] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def send_file(self, data: bytes, *, max_body_bytes: int) -> tuple[dict[str, object], bytes] | None:
        """Send the file and return the head and the body of the response, None if the child ended without one.

        Raises `ResponseTooLarge` if the body has more than `max_body_bytes` bytes.
        """
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):  # the child ended early
            view = memoryview(data)
            for at in range(0, len(view), _CHUNK_BYTES):
                await loop.sock_sendall(self.connection, view[at : at + _CHUNK_BYTES])
        lengths = await self._receive(LENGTH_PREFIX.size)
        if lengths is None:
            return None
        head_length, body_length = LENGTH_PREFIX.unpack(lengths)
        if head_length > _MAX_HEADER_BYTES or body_length > max_body_bytes:
            raise ResponseTooLarge
        head = await self._receive(head_length)
        body = await self._receive(body_length)
        if head is None or body is None:
            return None
        try:
            fields = orjson.loads(head)
        except ValueError:
            return None
        return (fields, body) if isinstance(fields, dict) else None

    async def exchange(self, message: bytes, *, answered: bool = True) -> bytes:
        """Send a message of a stream and return the answer (`gateway.media.encoders.stream`); none if not `answered`.

        Raises `ConnectionError` if the child has ended.
        """
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.connection, MESSAGE_PREFIX.pack(len(message)) + message)
        if not answered:
            return b""
        prefix = await self._receive(MESSAGE_PREFIX.size)
        length = MESSAGE_PREFIX.unpack(prefix)[0] if prefix else _MAX_ANSWER_BYTES + 1
        answer = await self._receive(length) if length <= _MAX_ANSWER_BYTES else None
        if answer is None:
            raise ConnectionResetError("the child has ended")
        return answer

    async def receive_piece(self) -> tuple[bytes, bytes] | None:
        """Return the kind and the content of the next piece of a recording, None if the child ended.

        Raises `ResponseTooLarge` for a piece that no child of ours sends.
        """
        prefix = await self._receive(PIECE_PREFIX.size)
        if prefix is None:
            return None
        kind, length = PIECE_PREFIX.unpack(prefix)
        if kind not in (SAMPLES, JSON, BYTES) or length > _MAX_PIECE_BYTES or (kind == SAMPLES and length % 4):
            raise ResponseTooLarge
        piece = await self._receive(length)
        return None if piece is None else (kind, piece)

    async def _receive(self, count: int) -> bytes | None:
        loop, data, remaining = asyncio.get_running_loop(), BytesIO(), count
        while remaining:
            try:
                piece = await loop.sock_recv(self.connection, min(remaining, _CHUNK_BYTES))
            except ConnectionError:
                return None
            if not piece:
                return None
            data.write(piece)
            remaining -= len(piece)
        return data.getvalue()  # makes no copy: audio may have a hundred megabytes


class ForkServer:
    """Starts the fork server for the first file, and ends it after `idle` seconds without a file."""

    def __init__(self, *, idle: float = 300.0) -> None:
        self._idle = idle
        self._numbers = itertools.count()
        self._jobs: dict[int, Job] = {}
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    async def begin(
        self, task: Mapping[str, object], *, size: int, memory: int, seconds: float, file: int | None = None
    ) -> Job:
        """Fork a child that runs `task` on a file of `size` bytes, and return its job, which the caller must `end`.

        `file` is the descriptor of a file that the child reads by itself; None: the file is sent to it. `memory` limits
        the address space in bytes, without the libraries. `seconds` limits the CPU time. Raises
        `ForkServerUnavailable`.
        """
        try:
            return await self._begin(task, size, memory, seconds, file)
        except ForkServerUnavailable:  # it has just ended, which nothing had shown: another one is started
            return await self._begin(task, size, memory, seconds, file)

    async def _begin(self, task: Mapping[str, object], size: int, memory: int, seconds: float, file: int | None) -> Job:
        control = await self._connect()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        job = Job(next(self._numbers), ours)
        request = {"number": job.number, "task": task, "size": size, "memory": memory, "seconds": seconds}
        try:
            socket.send_fds(control, [orjson.dumps(request)], [theirs.fileno(), *([] if file is None else [file])])
        except OSError:
            ours.close()
            self._disconnect(control)
            raise ForkServerUnavailable from None
        finally:
            theirs.close()
        self._jobs[job.number] = job
        if self._idle_timer:
            self._idle_timer.cancel()
            self._idle_timer = None
        return job

    async def prepare(self, task: Mapping[str, object]) -> None:
        """Start the process if it does not run, and have it load the libraries of `task`, before a child needs them.

        A failure appears when a child is forked.
        """
        with suppress(ForkServerUnavailable, OSError):
            (await self._connect()).send(orjson.dumps({"task": task}))

    async def _connect(self) -> socket.socket:
        async with self._starting:
            return self._control or await self._start()

    def end(self, job: Job) -> None:
        """Kill the child of a job, unless it has ended. Its future `exited` completes when the child has ended."""
        job.connection.close()
        control = self._control
        if job.exited.done() or control is None:
            return
        with suppress(OSError):
            control.send(orjson.dumps({"kill": job.number}))
        # If the fork server does not kill the child in time, another one replaces it.
        late = asyncio.get_running_loop().call_later(_KILL_TIMEOUT_SECONDS, self._disconnect, control)
        job.exited.add_done_callback(lambda _: late.cancel())

    async def close(self) -> None:
        """End the process and all its children."""
        process = self._process
        if self._control:
            self._disconnect(self._control)
        if process:
            with suppress(TimeoutError):
                async with asyncio.timeout(_KILL_TIMEOUT_SECONDS):
                    await process.wait()

    async def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway.media.decoders",
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=_ENVIRONMENT,
            )
        except BaseException as error:
            ours.close()  # ends the process, if it has started
            if not isinstance(error, OSError):
                raise
            structlog.get_logger("gateway").error("the decoder process cannot be started", reason=str(error))
            raise ForkServerUnavailable from None
        finally:
            theirs.close()
        self._control = ours
        asyncio.get_running_loop().add_reader(ours, self._on_message, ours)
        return ours

    def _on_message(self, control: socket.socket) -> None:
        """Receive a message about a child that has ended."""
        try:
            message = control.recv(_MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            structlog.get_logger("gateway").error("the decoder process has ended unexpectedly", jobs=len(self._jobs))
            self._disconnect(control)
            return
        exit_message = orjson.loads(message)
        if job := self._jobs.pop(exit_message["ended"], None):
            job.exited.set_result(ExitInfo(exit_message["status"], exit_message["seconds"]))
        if not self._jobs:
            self._idle_timer = asyncio.get_running_loop().call_later(self._idle, self._disconnect, control)

    def _disconnect(self, control: socket.socket) -> None:
        """Drop the process, which has ended, is idle or does not respond: kill it, and fail its jobs."""
        if control is not self._control:
            return
        self._control = None
        asyncio.get_running_loop().remove_reader(control)
        control.close()
        if self._idle_timer:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._process and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()  # its children end with it
        jobs, self._jobs = self._jobs, {}
        for job in jobs.values():
            job.exited.cancel()
