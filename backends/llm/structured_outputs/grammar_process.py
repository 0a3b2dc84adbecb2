"""The process of one structure: compile it, then compute the token masks of its answers.

It is forked from the fork server and has one thread. Kernel timers end it if it takes too long, whatever it does.
"""

import os
import resource
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from backends.llm.structured_outputs.ipc_messages import (
    COMPILED,
    COMPLETE,
    FAILED,
    MASK,
    PROCESS_INFO,
    REJECTED,
    STARTED,
    TOKEN,
    TOKEN_ACCEPTED,
)
from backends.llm.structured_outputs.limits import MAX_GRAMMAR_SIZE, MAX_ITEMS_IN_ROW, STEP_MAX_ITEMS, Limits
from backends.llm.structured_outputs.llguidance_grammar import explain_compile_error, to_llguidance, trim_library_error
from backends.llm.structured_outputs.unique_keys import QuoteTokens, UniqueKeyTracker

# An ordinary grammar takes 0.1 ms per token. A process that takes more than these seconds of processor time, plus these
# for each token, lowers its priority so that it does not slow the model down.
_NICE_BASE_SECONDS = 0.5
_NICE_SECONDS_PER_TOKEN = 0.005
_HEAVY_NICENESS = 10
_TOKEN_WAIT_SECONDS = 0.001
"""Seconds for which masks wait for the tokens of other answers of the same decode step."""


def serve_grammar(
    tokenizer: LLTokenizer,
    quote_tokens: QuoteTokens,
    limits: Limits,
    kind: str,
    text: str,
    channel: socket.socket,
    seconds: float,
) -> None:
    """Compile a structure within `seconds` of processor time, and serve its answers until its channels are closed.

    `kind` and `text` are those of `StructuredOutputsParams`.
    """
    channel.send(STARTED + PROCESS_INFO.pack(os.getpid(), _limit_memory(limits)))
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        matcher, first_mask = _compile(tokenizer, kind, text)
    except MemoryError:
        return  # the other end sees that this process has ended, as when the kernel kills it
    except BaseException as error:  # the library's panics are not `Exception`s
        channel.send(REJECTED + trim_library_error(str(error)).encode())
        return
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    channel.send(COMPILED + first_mask)
    new_key_tracker = partial(UniqueKeyTracker, tokenizer, quote_tokens) if kind in ("json", "structural_tag") else None
    _MatcherServer(matcher, limits, channel, new_key_tracker).serve()


def _limit_memory(limits: Limits) -> int:
    """Limit the memory of this process, and return its resident bytes."""
    size, resident = Path("/proc/self/statm").read_bytes().split()[:2]
    page = resource.getpagesize()
    max_bytes = int(size) * page + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # If the machine runs out of memory, the kernel kills this process before the model.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    return int(resident) * page


def _compile(tokenizer: LLTokenizer, kind: str, text: str) -> tuple[LLMatcher, bytes]:
    """Return the matcher of an empty answer, and its mask. Raises `ValueError`, and whatever the library raises."""
    bounds = LLParserLimits(
        max_items_in_row=MAX_ITEMS_IN_ROW,
        step_max_items=STEP_MAX_ITEMS,
        max_grammar_size=MAX_GRAMMAR_SIZE,
        verbose_errors=False,
    )
    matcher = LLMatcher(tokenizer, to_llguidance(kind, text), log_level=0, limits=bounds)
    first_mask = b"" if matcher.is_error() else matcher.compute_bitmask()
    if matcher.is_error():
        raise ValueError(explain_compile_error(kind, text, matcher.get_error()))
    return matcher, first_mask


class _MatcherServer:
    """Serves the answers of this structure, each with a matcher and a channel of its own."""

    def __init__(
        self,
        matcher: LLMatcher,
        limits: Limits,
        channel: socket.socket,
        new_key_tracker: Callable[[], UniqueKeyTracker] | None = None,
    ) -> None:
        """`new_key_tracker` returns the key tracker of a new answer; None if answers contain no JSON."""
        self._initial_matcher = matcher
        self._new_key_tracker = new_key_tracker
        self._key_trackers: dict[socket.socket, UniqueKeyTracker] = {}
        self._limits = limits
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)
        self._matchers: dict[socket.socket, LLMatcher] = {}
        self._pending_masks: dict[socket.socket, None] = {}
        """The answers whose masks are still to be computed, in the order of their tokens."""
        self._spent_before = time.process_time()
        self._tokens = 0
        self._has_normal_priority = True

    def serve(self) -> None:
        """Run until the structure's channel and those of its answers are closed.

        Tokens go before masks: the engine waits for the reply whether an answer is complete, and needs the masks only
        after the next forward pass. The tokens of one decode step arrive one soon after the other.
        """
        while self._selector.get_map():
            expects_tokens = 1 < len(self._matchers) > len(self._pending_masks)
            events = self._selector.select(
                _TOKEN_WAIT_SECONDS if expects_tokens and self._pending_masks else 0 if self._pending_masks else None
            )
            for key, _ in events:
                if key.fileobj is self._channel:
                    self._accept()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._run_bounded(key.fileobj, self._consume)
            if self._pending_masks and not events:
                self._run_bounded(next(iter(self._pending_masks)), self._send_mask)

    def _accept(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._selector.unregister(self._channel)
            return
        for descriptor in descriptors:
            answer = socket.socket(fileno=descriptor)
            answer.setblocking(False)
            self._matchers[answer] = self._initial_matcher.deep_copy()
            if self._new_key_tracker is not None:
                self._key_trackers[answer] = self._new_key_tracker()
            self._selector.register(answer, selectors.EVENT_READ)

    def _run_bounded(self, answer: socket.socket, do: Callable[[socket.socket, LLMatcher], bool]) -> None:
        """Call `do` for an answer, in bounded time. Drop the answer if that returns false or its channel fails."""
        signal.setitimer(signal.ITIMER_PROF, self._limits.step_seconds)
        try:
            continues = do(answer, self._matchers[answer])
        except OSError:  # the channel is closed or full
            continues = False
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if not continues:
            self._pending_masks.pop(answer, None)
            del self._matchers[answer]
            self._key_trackers.pop(answer, None)
            self._selector.unregister(answer)
            answer.close()

    def _consume(self, answer: socket.socket, matcher: LLMatcher) -> bool:
        """Handle a token, and reply whether the answer is complete. Return false if the answer ends."""
        token = answer.recv(TOKEN.size)
        if not token:
            return False
        self._tokens += 1
        (token_id,) = TOKEN.unpack(token)
        if not matcher.consume_token(token_id):
            answer.send(FAILED + trim_library_error(matcher.get_error()).encode())
            return False
        if matcher.is_stopped():
            answer.send(COMPLETE)
            return False
        answer.send(TOKEN_ACCEPTED)
        if (key_tracker := self._key_trackers.get(answer)) is not None:
            key_tracker.consume(token_id)
        self._pending_masks[answer] = None
        return True

    def _send_mask(self, answer: socket.socket, matcher: LLMatcher) -> bool:
        """Send the mask of the next token. Return false if the answer ends."""
        del self._pending_masks[answer]
        mask = matcher.compute_bitmask()
        if not matcher.is_error() and self._is_within_budget():
            key_tracker = self._key_trackers.get(answer)
            answer.send(MASK + (mask if key_tracker is None else key_tracker.without_duplicates(mask)))
            return True
        why = (
            trim_library_error(matcher.get_error())
            if matcher.is_error()
            else "it takes too long to follow its answers."
        )
        answer.send(FAILED + why.encode())
        return False

    def _is_within_budget(self) -> bool:
        """Return whether all answers together are within their processor time. Lowers a heavy process's priority."""
        spent = time.process_time() - self._spent_before
        if self._has_normal_priority and spent > _NICE_BASE_SECONDS + _NICE_SECONDS_PER_TOKEN * self._tokens:
            os.nice(_HEAVY_NICENESS)
            self._has_normal_priority = False
        return spent <= self._limits.base_matching_seconds + self._limits.matching_seconds_per_token * self._tokens
