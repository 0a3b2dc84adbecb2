"""One file, read in a process of its own.

In: a message of JSON, with `task`, `size` of the file, `memory` in bytes of address space besides the libraries, and
`seconds` of a core; and a stream socket, from which the file comes. Out, by that socket: the lengths of a head and a
body; the head, which is JSON with `refusal`, null or why the file cannot be used; and the body: text as UTF-8, samples,
or bytes.
"""

import ctypes
import json
import math
import os
import resource
import signal
import socket
import struct
from pathlib import Path
from typing import Any

from gateway.media.invalid_media import InvalidMedia

LENGTH_PREFIX = struct.Struct("!IQ")
"""Before an answer: bytes of its head, and of its body."""
_CHUNK_BYTES = 1 << 20
_MAX_OPEN_FILES = 64
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

# Loaded before the process forks, as everything that it needs is.
_libc = ctypes.CDLL(None)


def run(asked: dict[str, Any], descriptor: int) -> None:
    """Do the job `asked` for, with the socket `descriptor`, and end this process."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    kept = os.dup2(descriptor, 3)
    os.closerange(4, 65536)
    # Before the file: what reads it may be made to do anything.
    set_resource_limits(asked["memory"], asked["seconds"])
    with socket.socket(fileno=kept) as way:
        _respond(asked, way)
    os._exit(0)  # nothing that a parser left behind may hold the end up


def _respond(asked: dict[str, Any], way: socket.socket) -> None:
    head: dict[str, Any] = {}
    body = b""
    try:
        head, body = run_task(asked["task"], _receive(way, asked["size"]))
    except InvalidMedia as why:
        head["refusal"] = str(why)
    except MemoryError:
        head["refusal"] = f"the file needs more than {asked['memory'] // 2**20} MiB of memory to be read"
    except RecursionError:
        head["refusal"] = "the file is nested too deeply"
    except Exception:  # whatever a parser raises about a file that is not as it should be
        head["refusal"] = "the file is broken"
    start = json.dumps({"refusal": None, **head}).encode()
    way.sendall(LENGTH_PREFIX.pack(len(start), len(body)) + start)
    way.sendall(body)


def _receive(way: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        count = way.recv_into(view[at : at + _CHUNK_BYTES])
        if not count:
            os._exit(1)  # whoever asked has gone
        at += count
    view.release()
    whole = bytes(data)
    return whole


def set_resource_limits(memory: int, seconds: float) -> None:
    """Take no more than `memory` bytes of addresses and `seconds` of a core, and give way to everything else."""
    os.nice(5)
    libraries = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, libraries + memory),
        (resource.RLIMIT_CPU, math.ceil(seconds) + 1),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    # Of a core as well, and to the moment; what does not come back from a library is ended all the same.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def run_task(task: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Do the task. Returns what else the head says, and the body. Raises `Unusable`, and whatever parsers raise."""
    match task["task"]:
        case "picture":
            from gateway.media.decoders import images

            width, height = images.verify_image(
                data, task["media_type"], max_pixels=task["max_pixels"], pixels_left=task["pixels_left"]
            )
            return {"width": width, "height": height}, b""
        case "sound":
            from gateway.media.decoders import audio

            return {}, audio.decode_audio(data, task["container"], max_seconds=task["max_seconds"])
        case "unquote":
            from gateway.media.decoders import percent_encoding

            return {}, percent_encoding.decode_percent_encoding(data, base64=task["base64"])
        case _:
            from gateway.media.decoders import documents

            return {}, documents.extract_text(
                data, task["media_type"], markup=task["markup"], most=task["max_characters"]
            ).encode()
