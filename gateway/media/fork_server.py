"""The process that forks a child for each file, seen from the gateway (`gateway.media.decoders` is what runs in it).

A file is read by a child of its own, which has its libraries loaded already, limits, a lower priority, and no
environment and no descriptor but that of its job. Whatever happens to it, nothing is left of one file for the next.
"""

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import orjson
import structlog

import gateway
from gateway.media.decoders.child_process import LENGTH_PREFIX

_ENVIRONMENT = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    "PYTHONPATH": str(Path(gateway.__file__).parents[1]),
    "PYTHONSAFEPATH": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Where an interpreter may have been told to find its own library.
    **({"LD_LIBRARY_PATH": os.environ["LD_LIBRARY_PATH"]} if "LD_LIBRARY_PATH" in os.environ else {}),
}
_CHUNK_BYTES = 256 * 1024
_MAX_HEADER_BYTES = 16 * 1024
_MAX_MESSAGE_BYTES = 64 * 1024
_KILL_TIMEOUT_SECONDS = 2.0
"""Seconds within which a killed child has ended."""


class ForkServerUnavailable(Exception):
    """The fork server could not be started, or ended while it was needed."""


class ResponseTooLarge(Exception):
    """A child wants to answer with more than it may."""


@dataclass(frozen=True, slots=True)
class ExitInfo:
    """How a child ended: its wait `status`, and the `seconds` of a core that it took."""

    status: int
    seconds: float


@dataclass(slots=True)
class Job:
    """One file that is read. `ended` is cancelled where the server went away with it."""

    number: int
    connection: socket.socket
    exited: asyncio.Future[ExitInfo] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def send_file(self, data: bytes, *, largest: int) -> tuple[dict[str, object], bytes] | None:
        """Send the file and return the head and the body of the answer; None where the child ended without one.

        Raises `TooLong` where the body has more than `largest` bytes.
        """
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):  # it ended early
            view = memoryview(data)
            for at in range(0, len(view), _CHUNK_BYTES):
                await loop.sock_sendall(self.connection, view[at : at + _CHUNK_BYTES])
        lengths = await self._receive(LENGTH_PREFIX.size)
        if lengths is None:
            return None
        head_length, body_length = LENGTH_PREFIX.unpack(lengths)
        if head_length > _MAX_HEADER_BYTES or body_length > largest:
            raise ResponseTooLarge
        head = await self._receive(head_length)
        body = await self._receive(body_length)
        if head is None or body is None:
            return None
        try:
            found = orjson.loads(head)
        except ValueError:
            return None
        return (found, body) if isinstance(found, dict) else None

    async def _receive(self, count: int) -> bytes | None:
        loop, data, left = asyncio.get_running_loop(), BytesIO(), count
        while left:
            try:
                piece = await loop.sock_recv(self.connection, min(left, _CHUNK_BYTES))
            except ConnectionError:
                return None
            if not piece:
                return None
            data.write(piece)
            left -= len(piece)
        return data.getvalue()  # no copy: a sound may have a hundred megabytes


class ForkServer:
    """Starts the process when a file is to be read, and ends it when none came for `idle` seconds."""

    def __init__(self, *, idle: float = 300.0) -> None:
        self._idle = idle
        self._numbers = itertools.count()
        self._jobs: dict[int, Job] = {}
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    async def begin(self, task: Mapping[str, object], *, size: int, memory: int, seconds: float) -> Job:
        """Fork a child for a file of `size` bytes; `end` must follow. Raises `Broken`.

        `memory` is in bytes of address space besides the libraries, `seconds` are those of a core.
        """
        async with self._starting:
            control = self._control or await self._start()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        job = Job(next(self._numbers), ours)
        asked = {"number": job.number, "task": task, "size": size, "memory": memory, "seconds": seconds}
        try:
            socket.send_fds(control, [orjson.dumps(asked)], [theirs.fileno()])
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

    def end(self, job: Job) -> None:
        """Have a job's child ended, if it is not. Its `ended` is done when it is."""
        job.connection.close()
        control = self._control
        if job.exited.done() or control is None:
            return
        with suppress(OSError):
            control.send(orjson.dumps({"kill": job.number}))
        # A server that does not do even that is no use to others either.
        late = asyncio.get_running_loop().call_later(_KILL_TIMEOUT_SECONDS, self._disconnect, control)
        job.exited.add_done_callback(lambda _: late.cancel())

    async def close(self) -> None:
        """End the process, and with it all its children."""
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
            ours.close()  # whereupon it ends, if it began
            if not isinstance(error, OSError):
                raise
            structlog.get_logger("gateway").error("files cannot be read", reason=str(error))
            raise ForkServerUnavailable from None
        finally:
            theirs.close()
        self._control = ours
        asyncio.get_running_loop().add_reader(ours, self._on_message, ours)
        return ours

    def _on_message(self, control: socket.socket) -> None:
        """Read what the server says of children that have ended."""
        try:
            message = control.recv(_MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            structlog.get_logger("gateway").error("the process that reads files has ended", jobs=len(self._jobs))
            self._disconnect(control)
            return
        told = orjson.loads(message)
        if job := self._jobs.pop(told["ended"], None):
            job.exited.set_result(ExitInfo(told["status"], told["seconds"]))
        if not self._jobs:
            self._idle_timer = asyncio.get_running_loop().call_later(self._idle, self._disconnect, control)

    def _disconnect(self, control: socket.socket) -> None:
        """Part from a server that ended, is to end, or does not answer."""
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
