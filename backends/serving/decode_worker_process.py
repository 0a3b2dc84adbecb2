"""The program of the decoding process (see `backends.serving.decode_worker`). It forks a child for each file.

Each request on stdin is a frame: `FRAME_HEADER` with the lengths of a header and of the file, the header, and the file.
The header is JSON: `function`, its `options`, `memory` in bytes and `seconds` of CPU time. Each reply on stdout is a
frame of the same format: the header holds the values that the function returned, or `refused` with the message of an
`InvalidValue`; the bytes that the function returned follow. The process ends when stdin does, or when a child ends
without a reply; its exit status then is the reason.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any

FRAME_HEADER = struct.Struct("!IQ")
"""Two lengths in bytes: of the JSON header, uint32, and of the body, uint64; both big-endian."""
EXIT_CPU_LIMIT = 10
"""The exit status after a child exceeded its CPU time."""
_CHUNK_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def main() -> None:
    """Serve until stdin ends."""
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # output of libraries must not reach the replies
    while lengths := _receive(FRAME_HEADER.size):
        header_length, length = FRAME_HEADER.unpack(lengths)
        request = json.loads(_receive(header_length))
        module, _, name = request["function"].partition(":")
        function = getattr(importlib.import_module(module), name)
        child = os.fork()
        if not child:
            try:
                _set_resource_limits(request["memory"], request["seconds"])
                _run_and_reply(function, request["options"], _receive(length), out)
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if status:
            timed_out = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU)
            os._exit(EXIT_CPU_LIMIT if timed_out else 1)


def _set_resource_limits(memory: int, seconds: float) -> None:
    """Limit this process to `memory` more bytes than it has now, and to `seconds` of CPU time."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # killing the parent kills the child
    current_memory = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for resource_name, limit in (
        (resource.RLIMIT_AS, current_memory + memory),
        (resource.RLIMIT_CPU, int(seconds) + 2),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        hard_limit = resource.getrlimit(resource_name)[1]
        limit = limit if hard_limit == resource.RLIM_INFINITY else min(limit, hard_limit)
        resource.setrlimit(resource_name, (limit, limit))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _run_and_reply(function: Any, options: dict[str, Any], file: bytes, out: int) -> None:
    from backends.serving.errors import InvalidValue

    body = b""
    try:
        values, body = function(file, **options)
    except InvalidValue as error:
        values = {"refused": error.message}
    header = json.dumps(values).encode()
    _send(out, FRAME_HEADER.pack(len(header), len(body)) + header)
    _send(out, body)


def _receive(count: int) -> bytes:
    """Read `count` bytes from stdin; return no bytes if it has ended."""
    data = bytearray()
    while len(data) < count:
        chunk = os.read(0, min(_CHUNK_BYTES, count - len(data)))
        if not chunk:
            return b""
        data += chunk
    return bytes(data)


def _send(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[:_CHUNK_BYTES]) :]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
