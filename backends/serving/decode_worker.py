"""A process for what strangers send that has to be decoded: beside the model's own, which others wait for.

Decoders hold the interpreter for as long as they work, and may be made to work for minutes, take gigabytes, or worse.
In a process of its own a file has a part of a core and of memory, and everybody else's answers go on.
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
"""Of a core, that decoding a file may take. The largest that are taken need three."""
_MAX_MEMORY_BYTES = 2 << 30
_WALL_TIME_FACTOR = 3
"""By the clock it may take so many times as long."""
_MAX_HEADER_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_PROCESS_FILE = Path(__file__).with_name("decode_worker_process.py")


class DecodeWorker:
    """Calls functions `(file, **options) -> (dict, bytes)` in another process, one at a time, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.max_cpu_seconds = MAX_CPU_SECONDS

    def call(
        self, function: str, file: bytes, *, param: str, largest: int, **options: object
    ) -> tuple[dict[str, object], bytearray]:
        """Return what `function`, written `module:name`, makes of a file: at most `largest` bytes.

        Raises `InvalidValue` for the input `param` where the function does, takes too long or too much, or dies, and
        `EngineFailed` where there is no process to be had.
        """
        head = json.dumps(
            {"function": function, "options": options, "memory": _MAX_MEMORY_BYTES, "seconds": self.max_cpu_seconds}
        )
        with self._lock:
            process = self._process or self._start()
            assert process.stdin is not None and process.stdout is not None
            late = threading.Timer(_WALL_TIME_FACTOR * self.max_cpu_seconds, process.kill)
            late.start()
            try:
                _send(process.stdin, FRAME_HEADER.pack(len(head), len(file)) + head.encode(), file)
                found, body = _receive(process.stdout, largest)
            except (OSError, EOFError, ValueError):
                raise InvalidValue(self._failure(process), param) from None
            except BaseException:
                self._kill(process)
                raise
            finally:
                late.cancel()
        if "refused" in found:
            raise InvalidValue(str(found["refused"])[:1000], param)
        return found, body

    def close(self) -> None:
        """End the process; the next call starts another."""
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
                env=environment | {"OPENBLAS_NUM_THREADS": "1"},  # what has several threads cannot be forked safely
                bufsize=0,
            )
        except (OSError, ValueError, TypeError) as error:
            raise EngineFailed(f"No process could be started to decode files: {error}") from None
        return self._process

    def _failure(self, process: "subprocess.Popen[bytes]") -> str:
        """Say why a process gave no answer, and end it."""
        try:
            # Where it is ending by itself its status says why.
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
"""That of this process, which is one model's: it starts with the first file."""


def _send(pipe: IO[bytes], *parts: bytes) -> None:
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[pipe.write(view[:_CHUNK_BYTES]) :]


def _receive(pipe: IO[bytes], largest: int) -> tuple[dict[str, object], bytearray]:
    """Read one answer. Raises `EOFError` where it is cut off, and `ValueError` where it is none."""
    head_length, length = FRAME_HEADER.unpack(_read(pipe, FRAME_HEADER.size))
    if head_length > _MAX_HEADER_BYTES or length > largest:
        raise ValueError("an answer is longer than it may be")
    found = json.loads(_read(pipe, head_length))
    if not isinstance(found, dict):
        raise ValueError("an answer has no head")
    return found, _read(pipe, length)


def _read(pipe: IO[bytes], count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    at = 0
    while at < count:
        got = pipe.readinto(view[at : at + _CHUNK_BYTES])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        at += got
    return data
