"""A separate process that decodes untrusted files.

A decoder holds Python's global lock while it works, and a crafted file can make it work for minutes, take gigabytes or
crash. In its own process, with limits on CPU time and memory, it neither delays nor ends other requests.
"""

import contextlib
import json
import os
import subprocess
import threading
from pathlib import Path
from typing import IO

from backends.serving.decode_worker_process import EXIT_CPU_LIMIT, FRAME_HEADER
from backends.serving.errors import EngineFailed, InvalidValue
from backends.serving.interpreters import find_interpreters

MAX_CPU_SECONDS = 10.0
"""CPU time that decoding one file may take, in seconds. The largest files that are accepted need three."""
_MAX_MEMORY_BYTES = 2 << 30
_WALL_TIME_FACTOR = 3
"""Limit on the elapsed time of one file, as a multiple of the limit on CPU time."""
_MAX_HEADER_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_PROCESS_FILE = Path(__file__).with_name("decode_worker_process.py")


class DecodeWorker:
    """Calls functions `(file, **options) -> (dict, bytes)` in the decoding process, one at a time, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.max_cpu_seconds = MAX_CPU_SECONDS

    def call(
        self, function: str, file: bytes, *, param: str, max_reply_bytes: int, **options: object
    ) -> tuple[dict[str, object], bytearray]:
        """Call `function`, written `module:name`, and return its values and at most `max_reply_bytes` bytes.

        Raises `InvalidValue`, naming the input `param`, if the function raises it, exceeds a limit or crashes;
        `EngineFailed` if no process can be started.
        """
        header = json.dumps(
            {"function": function, "options": options, "memory": _MAX_MEMORY_BYTES, "seconds": self.max_cpu_seconds}
        )
        with self._lock:
            process = self._process or self._start()
            assert process.stdin is not None and process.stdout is not None
            deadline = threading.Timer(_WALL_TIME_FACTOR * self.max_cpu_seconds, process.kill)
            deadline.start()
            try:
                _send(process.stdin, FRAME_HEADER.pack(len(header), len(file)) + header.encode(), file)
                values, body = _receive(process.stdout, max_reply_bytes)
            except (OSError, EOFError, ValueError):
                raise InvalidValue(self._failure(process), param) from None
            except BaseException:
                self._kill(process)
                raise
            finally:
                deadline.cancel()
        if "refused" in values:
            raise InvalidValue(str(values["refused"])[:1000], param)
        return values, body

    def close(self) -> None:
        """End the process; the next call starts a new one."""
        with self._lock:
            if self._process:
                self._kill(self._process)

    def _start(self) -> "subprocess.Popen[bytes]":
        python = next(find_interpreters(), None)
        if python is None:
            raise EngineFailed("No Python interpreter was found to decode files with.")
        environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
        try:
            self._process = subprocess.Popen(
                [python, "-I", str(_PROCESS_FILE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment | {"OPENBLAS_NUM_THREADS": "1"},  # a process with several threads cannot fork safely
                bufsize=0,
            )
        except (OSError, ValueError, TypeError) as error:
            raise EngineFailed(f"No process could be started to decode files: {error}") from None
        return self._process

    def _failure(self, process: "subprocess.Popen[bytes]") -> str:
        """Kill a process that sent no valid reply, and return the reason as a sentence."""
        try:
            # If it is ending by itself, its exit status is the reason.
            status = process.wait(1)
        except subprocess.TimeoutExpired:
            status = 0
        self._kill(process)
        if status == EXIT_CPU_LIMIT or status < 0:
            return f"The file cannot be decoded within {self.max_cpu_seconds:g} seconds."
        return "The file cannot be decoded: it is broken, or takes too much memory."

    def _kill(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


DECODE_WORKER = DecodeWorker()
"""The decode worker of this process, which serves one model; its process starts with the first file."""


def _send(pipe: IO[bytes], *parts: bytes) -> None:
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[pipe.write(view[:_CHUNK_BYTES]) :]


def _receive(pipe: IO[bytes], max_reply_bytes: int) -> tuple[dict[str, object], bytearray]:
    """Read one reply. Raises `EOFError` if it is cut off, and `ValueError` if it is malformed or too long."""
    header_length, length = FRAME_HEADER.unpack(_read(pipe, FRAME_HEADER.size))
    if header_length > _MAX_HEADER_BYTES or length > max_reply_bytes:
        raise ValueError("a reply is longer than the limit")
    values = json.loads(_read(pipe, header_length))
    if not isinstance(values, dict):
        raise ValueError("a reply has no header")
    return values, _read(pipe, length)


def _read(pipe: IO[bytes], count: int) -> bytearray:
    """Read exactly `count` bytes. Raises `EOFError`."""
    data = bytearray(count)
    view = memoryview(data)
    offset = 0
    while offset < count:
        num_read = pipe.readinto(view[offset : offset + _CHUNK_BYTES])  # type: ignore[attr-defined]
        if not num_read:
            raise EOFError
        offset += num_read
    return data
