"""A compiled structure and the state of its answers, as the model's process sees them."""

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

# Whether an answer is complete is known within 30 us, unless the machine is busy or the structure is slow.
_MAX_WAIT_SECONDS = 0.002
_MIN_WAIT_SECONDS = 0.00005
_PAGE = resource.getpagesize()


class GrammarProcess:
    """The process of one structure. `users` counts the requests that have it; the queue's lock guards it."""

    def __init__(self, channel: socket.socket, pid: int, begun_at: int, first: TokenMask) -> None:
        """`begun_at` is how many bytes it had when it was forked, `first` the mask of an empty answer."""
        self.channel = channel
        self.first_mask = first
        self.num_users = 0
        self.max_wait_seconds = _MAX_WAIT_SECONDS
        self._pid = pid
        self._initial_bytes = begun_at

    def nbytes(self) -> int:
        """By how much it has grown since it was forked."""
        try:
            resident = Path(f"/proc/{self._pid}/statm").read_bytes().split()[1]
            return max(0, int(resident) * _PAGE - self._initial_bytes)
        except (OSError, IndexError):  # it has just ended
            return 0

    def kill(self) -> None:
        """End it, and the answers that have it. Only while its channel says that it lives."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)


class CompiledGrammar:
    """A compiled structure, held by one request."""

    def __init__(self, process: GrammarProcess, vocab_size: int, release: Callable[[GrammarProcess], None]) -> None:
        """`release` is called when nothing refers to this any more, from any thread, and must return at once."""
        self._process = process
        self._vocab_size = vocab_size
        self._release = release

    def __del__(self) -> None:
        self._release(self._process)

    def new_matcher(self) -> "ProcessMatcher":
        """The state of a new answer. Raises `InvalidValue` where the process has been ended."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                socket.send_fds(self._process.channel, [b"a"], [theirs.fileno()], socket.MSG_DONTWAIT)
            except OSError:
                ours.close()
                raise _process_ended() from None
        return ProcessMatcher(self, self._process, ours, self._vocab_size)


class ProcessMatcher:
    """How far an answer has come in its structure.

    The mask for the next token is computed in the other process while the model runs.
    """

    def __init__(
        self, grammar: CompiledGrammar, process: GrammarProcess, channel: socket.socket, vocab_size: int
    ) -> None:
        self.is_complete = False
        self._grammar = grammar  # as long as this is here, the process is in use
        self._process = process
        self._channel = channel
        self._vocab_size = vocab_size
        self._size = max_packet_bytes(vocab_size)
        self._banned: TokenMask | None = process.first_mask
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)

    def banned_tokens(self, seconds: float) -> TokenMask | None:
        """Which tokens may not come next, bool[vocabulary].

        None where that is not known after `seconds`, and where the answer turns out to be `complete`. Raises
        `InvalidValue` where the structure turns out to be too complex.
        """
        while self._banned is None and not self.is_complete:
            if not self._receive(seconds):
                return None
        return self._banned

    def consume(self, token: int) -> bool | None:
        """Go on by a token; true where the answer is complete and nothing may follow, None where that is not known yet.

        Raises `InvalidValue`.
        """
        self._banned = None
        try:
            self._channel.send(TOKEN.pack(token))
        except OSError:
            self._receive(0)  # why it was closed, where that was said
            raise _process_ended() from None
        process = self._process
        if not self._receive(process.max_wait_seconds):
            # A structure that is slow once may be so for each token of many answers: it is waited for less and less.
            process.max_wait_seconds = max(process.max_wait_seconds / 2, _MIN_WAIT_SECONDS)
            return None
        process.max_wait_seconds = min(process.max_wait_seconds * 1.25, _MAX_WAIT_SECONDS)
        return self.is_complete

    def _receive(self, seconds: float) -> bool:
        """Take a packet; false where none has come after `seconds`."""
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
    """From what may come next, a bit each, to what may not: bool[vocab_size]."""
    allowed = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little", count=vocab_size)
    return np.asarray(allowed == 0)


def _process_ended() -> InvalidValue:
    return InvalidValue(
        "This cannot be enforced: it takes too much time or memory to follow its answers.", "structured_outputs"
    )
