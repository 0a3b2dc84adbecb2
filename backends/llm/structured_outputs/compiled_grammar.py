"""The model's side of a grammar process: the process, a request's grammar, and the matcher of each answer."""

import os
import resource
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from backends.llm.structured_outputs.ipc_messages import COMPLETE, FAILED, MASK, TOKEN, TOKEN_ACCEPTED, max_packet_bytes
from backends.serving.errors import InvalidValue

TokenMask: TypeAlias = npt.NDArray[np.bool_]

_MAX_WAIT_SECONDS = 0.002
"""Longest wait for the reply to a token. It comes within 30 us, unless the machine is busy or the grammar is slow."""
_MIN_WAIT_SECONDS = 0.00005
_PAGE = resource.getpagesize()


class GrammarProcess:
    """The process of one structure.

    `num_users` counts the requests that use it; `GrammarCompiler`'s lock guards it. `max_wait_seconds` is how long a
    matcher waits for the reply to a token; it shrinks while the process is slow.
    """

    def __init__(self, channel: socket.socket, pid: int, initial_bytes: int, first_mask: TokenMask) -> None:
        """`initial_bytes` is its memory when it was forked, `first_mask` the mask of an empty answer."""
        self.channel = channel
        self.first_mask = first_mask
        self.num_users = 0
        self.max_wait_seconds = _MAX_WAIT_SECONDS
        self._pid = pid
        self._initial_bytes = initial_bytes

    def nbytes(self) -> int:
        """Return the bytes by which its resident memory has grown since it was forked."""
        try:
            resident = Path(f"/proc/{self._pid}/statm").read_bytes().split()[1]
            return max(0, int(resident) * _PAGE - self._initial_bytes)
        except (OSError, IndexError):  # it has just ended
            return 0

    def kill(self) -> None:
        """Kill the process; its answers fail. Call it only while the process's channel is open."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)


class CompiledGrammar:
    """A compiled structure, used by one request. While it exists, the process is in use."""

    def __init__(self, process: GrammarProcess, vocab_size: int, release: Callable[[GrammarProcess], None]) -> None:
        """`release` is called when this object is deleted, from any thread, and must return at once."""
        self._process = process
        self._vocab_size = vocab_size
        self._release = release

    def __del__(self) -> None:
        self._release(self._process)

    def new_matcher(self) -> "ProcessMatcher":
        """Return the matcher of a new answer. Raises `InvalidValue` if the process has ended."""
        channel, process_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with process_end:
            try:
                socket.send_fds(self._process.channel, [b"a"], [process_end.fileno()], socket.MSG_DONTWAIT)
            except OSError:
                channel.close()
                raise _process_ended() from None
        return ProcessMatcher(self, self._process, channel, self._vocab_size)


class ProcessMatcher:
    """The state of one answer: `backends.llm.engine.Matcher` over a channel to the grammar process.

    That process computes the mask for the next token while the model runs.
    """

    def __init__(
        self, grammar: CompiledGrammar, process: GrammarProcess, channel: socket.socket, vocab_size: int
    ) -> None:
        self.is_complete = False
        self._grammar = grammar  # keeps the process in use
        self._process = process
        self._channel = channel
        self._vocab_size = vocab_size
        self._size = max_packet_bytes(vocab_size)
        self._banned: TokenMask | None = process.first_mask
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)

    def banned_tokens(self, seconds: float) -> TokenMask | None:
        """Return the tokens that may not come next, bool[vocabulary].

        Return None if the mask is not known after `seconds`, or if the answer turns out to be complete. Raises
        `InvalidValue` if the grammar turns out to be too complex.
        """
        while self._banned is None and not self.is_complete:
            if not self._receive(seconds):
                return None
        return self._banned

    def consume(self, token: int) -> bool | None:
        """Advance by a token. Return whether the answer is complete, or None if that is not known yet.

        Raises `InvalidValue` if the grammar turns out to be too complex.
        """
        self._banned = None
        try:
            self._channel.send(TOKEN.pack(token))
        except OSError:
            self._receive(0)  # raises the reason, if the process sent one
            raise _process_ended() from None
        process = self._process
        if not self._receive(process.max_wait_seconds):
            # A slow grammar may be slow for each token of many answers, so later tokens wait less and less.
            process.max_wait_seconds = max(process.max_wait_seconds / 2, _MIN_WAIT_SECONDS)
            return None
        process.max_wait_seconds = min(process.max_wait_seconds * 1.25, _MAX_WAIT_SECONDS)
        return self.is_complete

    def close(self) -> None:
        """Close the channel, so that the grammar process frees the state of this answer. May be called twice."""
        self._channel.close()

    def _receive(self, seconds: float) -> bool:
        """Handle one packet. Return false if none arrives within `seconds`."""
        if not self._poll.poll(seconds * 1000):
            return False
        try:
            packet = self._channel.recv(self._size, socket.MSG_DONTWAIT)
        except OSError:
            packet = b""
        kind, rest = packet[:1], packet[1:]
        if kind == MASK:
            self._banned = unpack_mask(rest, self._vocab_size)
        elif kind == COMPLETE:
            self.is_complete = True
        elif kind == FAILED:
            raise InvalidValue(f"This cannot be enforced: {rest.decode(errors='replace')}", "structured_outputs")
        elif kind != TOKEN_ACCEPTED:
            raise _process_ended()
        return True


def unpack_mask(bits: bytes, vocab_size: int) -> TokenMask:
    """Convert the bits of the tokens that may come next into bool[vocab_size] of those that may not."""
    allowed = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little", count=vocab_size)
    return np.asarray(allowed == 0)


def _process_ended() -> InvalidValue:
    return InvalidValue(
        "This cannot be enforced: it takes too much time or memory to follow its answers.", "structured_outputs"
    )
