"""The child process that decodes one file, or encodes one stream of speech (`gateway.media.encoders.stream`).

Input: a JSON message with `task`, `size` of the file, `memory` in bytes of address space without the libraries, and
`seconds` of CPU time; and a stream socket with the file. Output, on that socket: the lengths of a head and a body; the
head, JSON with `refusal`, which is null or the reason why the file cannot be used; and the body, which is text in
UTF-8, samples, or bytes.

The tasks `last_frame` and `preview` read their file, a video, from a descriptor.

The tasks `recording` and `clip` read their file from a descriptor, too, and answer piece by piece, as fast as the
pieces are read: each has a `PIECE_PREFIX`. Of a recording, the first is JSON with `seconds`, the length that the file
declares, or null; then samples follow. Of a clip, its frames follow. The last piece is JSON with `refusal`, and with
what the decoder counted.
"""

import ctypes
import fcntl
import json
import math
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

from gateway.media.invalid_media import InvalidMedia

LENGTH_PREFIX = struct.Struct("!IQ")
"""Prefix of a response: the lengths of its head and of its body."""
PIECE_PREFIX = struct.Struct("!cI")
"""Prefix of a piece: `SAMPLES`, `JSON` or `BYTES`, and its length."""
SAMPLES, JSON, BYTES = b"s", b"j", b"b"
_CHUNK_BYTES = 1 << 20
_PIECE_BYTES = 64_000
"""Bytes of a piece of samples: a second."""
_LARGEST_PIECE = 512 * 1024
"""Bytes of a piece of frames."""
_MAX_OPEN_FILES = 64
Send: TypeAlias = Callable[[bytes, bytes | bytearray | memoryview], None]
"""Sends a piece: its kind and its content."""
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

# Loaded before the fork, as everything that the child needs.
_libc = ctypes.CDLL(None)


def run(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Handle `request`, and end this process. `descriptors` are the socket and, for a recording or video, its file."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 64) for descriptor in descriptors]
    kept = [os.dup2(descriptor, 3 + index) for index, descriptor in enumerate(moved)]
    os.closerange(3 + len(kept), 65536)
    # Before the file is read, because a malicious file may take over its parser.
    set_resource_limits(request["memory"], request["seconds"])
    with socket.socket(fileno=kept[0]) as connection:
        if request["task"]["task"] in ("recording", "clip"):
            _respond_in_pieces(request, connection, kept[1])
        else:
            _respond(request, connection, *kept[1:])
    os._exit(0)  # runs no exit handlers, which a parser may have installed


def _respond(request: dict[str, Any], connection: socket.socket, descriptor: int | None = None) -> None:
    if request["task"]["task"] == "encode":
        from gateway.media.encoders import stream

        stream.serve(connection, request["task"]["format"])
        return
    head: dict[str, Any] = {}
    body = b""
    try:
        if descriptor is None:
            head, body = run_task(request["task"], _receive(connection, request["size"]))
        else:
            with os.fdopen(descriptor, "rb") as file:
                head, body = run_file_task(request["task"], file)
    except Exception as error:
        head["refusal"] = _refusal(error, request)
    start = json.dumps({"refusal": None, **head}).encode()
    connection.sendall(LENGTH_PREFIX.pack(len(start), len(body)) + start)
    connection.sendall(body)


def _respond_in_pieces(request: dict[str, Any], connection: socket.socket, descriptor: int) -> None:
    def send(kind: bytes, piece: bytes | bytearray | memoryview) -> None:
        connection.sendall(PIECE_PREFIX.pack(kind, len(piece)))
        connection.sendall(piece)

    head: dict[str, Any] = {"refusal": None}
    try:
        with os.fdopen(descriptor, "rb") as file:
            answer = _send_clip if request["task"]["task"] == "clip" else _send_samples
            head |= answer(request["task"], file, send)
    except ConnectionError:
        os._exit(1)  # the gateway has ended, or no longer waits
    except Exception as error:
        head["refusal"] = _refusal(error, request)
    send(JSON, json.dumps(head).encode())


def _send_samples(task: dict[str, Any], file: IO[bytes], send: Send) -> dict[str, Any]:
    from gateway.media.decoders.audio import AudioDecoder

    pending = bytearray()
    decoder = AudioDecoder(file, task["container"], max_seconds=task["max_seconds"])
    send(JSON, json.dumps({"seconds": decoder.total_seconds}).encode())
    try:
        for samples in decoder:
            pending += samples
            if len(pending) >= _PIECE_BYTES:
                send(SAMPLES, pending)
                pending.clear()
    finally:
        if pending:
            send(SAMPLES, pending)
    return {}


def _send_clip(task: dict[str, Any], file: IO[bytes], send: Send) -> dict[str, Any]:
    from gateway.media.decoders.clip import ClipReader

    reader = ClipReader(file, task)
    for frame in reader:
        view = memoryview(frame)
        for at in range(0, len(view), _LARGEST_PIECE):
            send(BYTES, view[at : at + _LARGEST_PIECE])
    return {"count": reader.count, "more": reader.more}


def _refusal(error: Exception, request: dict[str, Any]) -> str:
    """Return the reason why a file cannot be used. Parsers raise many kinds of errors for malformed files."""
    match error:
        case InvalidMedia():
            return str(error)
        case MemoryError():
            return f"the file needs more than {request['memory'] // 2**20} MiB of memory to be read"
        case RecursionError():
            return "the file is nested too deeply"
        case _:
            return "the file is damaged"


def _receive(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        count = connection.recv_into(view[at : at + _CHUNK_BYTES])
        if not count:
            os._exit(1)  # the gateway has ended
        at += count
    view.release()
    return bytes(data)


def set_resource_limits(memory: int, seconds: float) -> None:
    """Limit this process to `memory` bytes of address space and `seconds` of CPU time, at a lower priority."""
    os.nice(5)
    libraries = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, limit in (
        (resource.RLIMIT_AS, libraries + memory),
        (resource.RLIMIT_CPU, math.ceil(seconds) + 1),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))
    # A precise limit of CPU time, too. Its signal ends the process even inside of a library.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def run_file_task(task: dict[str, Any], file: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Run a task on an open file. Returns and raises as `run_task` does."""
    from gateway.media.decoders import video

    return (video.last_frame if task["task"] == "last_frame" else video.preview)(file, task)


def run_task(task: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Run the task. Return further fields of the head, and the body. Raises `InvalidMedia`, and errors of parsers."""
    match task["task"]:
        case "image":
            from gateway.media.decoders import images

            width, height = images.verify_image(
                data, task["media_type"], max_pixels=task["max_pixels"], pixels_left=task["pixels_left"]
            )
            return {"width": width, "height": height}, b""
        case "first_frame":
            from gateway.media.decoders import pictures

            size = (task["width"], task["height"])
            return {}, pictures.first_frame(data, task["media_type"], size=size, max_pixels=task["max_pixels"])
        case "compose":
            from gateway.media.decoders import compositions

            return {}, compositions.compose(data, task)
        case "audio":
            from gateway.media.decoders import audio

            return {}, audio.decode_audio(data, task["container"], max_seconds=task["max_seconds"])
        case "percent_decode":
            from gateway.media.decoders import percent_encoding

            return {}, percent_encoding.decode_percent_encoding(data, base64=task["base64"])
        case _:
            from gateway.media.decoders import documents

            return {}, documents.extract_text(
                data, task["media_type"], is_html=task["is_html"], max_characters=task["max_characters"]
            ).encode()
