"""The process that a model has for files of strangers (`backends.serving.decode_worker`): it forks a child for each
of them.

On stdin, for each file: the lengths of a head and of the file, the head, which is JSON with `function`, its `options`,
`memory` in bytes and `seconds` of a core, and the file. On stdout the same: the head of an answer, with `refused` where
the function raised `InvalidValue`, and the bytes that it returned. It ends when stdin does, or when a child ends
without an answer; then its status says why.
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
EXIT_CPU_LIMIT = 10
"""The status where a child took more of a core than it may."""
_CHUNK_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def main() -> None:
    """Serve until stdin ends."""
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no part of an answer
    while lengths := _receive(FRAME_HEADER.size):
        head_length, length = FRAME_HEADER.unpack(lengths)
        asked = json.loads(_receive(head_length))
        module, _, name = asked["function"].partition(":")
        function = getattr(importlib.import_module(module), name)
        child = os.fork()
        if not child:
            try:
                _set_resource_limits(asked["memory"], asked["seconds"])
                _run_and_reply(function, asked["options"], _receive(length), out)
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if status:
            overran = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU)
            os._exit(EXIT_CPU_LIMIT if overran else 1)


def _set_resource_limits(memory: int, seconds: float) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # whoever ends this process ends its child
    libraries = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, libraries + memory),
        (resource.RLIMIT_CPU, int(seconds) + 2),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _run_and_reply(function: Any, options: dict[str, Any], file: bytes, out: int) -> None:
    from backends.serving.errors import InvalidValue

    body = b""
    try:
        head, body = function(file, **options)
    except InvalidValue as error:
        head = {"refused": error.message}
    start = json.dumps(head).encode()
    _send(out, FRAME_HEADER.pack(len(start), len(body)) + start)
    _send(out, body)


def _receive(count: int) -> bytes:
    """Read so many bytes from stdin; none where it has ended."""
    found = bytearray()
    while len(found) < count:
        piece = os.read(0, min(_CHUNK_BYTES, count - len(found)))
        if not piece:
            return b""
        found += piece
    return bytes(found)


def _send(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[:_CHUNK_BYTES]) :]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
