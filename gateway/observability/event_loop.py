"""Watches the event loop: how late it is, how long this process itself held it, with what, and whether it runs at all.

A beat on the loop measures how late it comes: every 50 ms while anything is done, every half second at rest. A hold is
seen up to one such interval shorter than it was. Lateness below 5 ms is not observed; whatever is above is observed in
both histograms, so that their counts agree. A thread sleeps until the beat that is expected would be a quarter of a
second late; only then does it look at what the loop's thread runs.
"""

import asyncio
import functools
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import structlog

from gateway.observability import watchdog
from gateway.observability.cpu_time import CpuClocks, CpuTime

HEARTBEAT_SECONDS = 0.05
"""Seconds between two beats while anything is done."""
IDLE_HEARTBEAT_SECONDS = 0.5
MIN_LAG_SECONDS = 0.005
"""Seconds of lateness above which it is observed: timers of the loop are rounded to milliseconds."""
LOGGED_LAG_SECONDS = 0.25
"""Seconds of a hold that is logged."""

_IDLE_CPU_FRACTION = 0.05
"""The part of its time in which the loop's thread computes from which on it is not at rest, without any request too."""
_FIRST_HEARTBEAT_SECONDS = 1.0
"""Seconds until the first beat: as the server starts, all garbage is collected once."""
_MAX_FRAMES = 8


class Histogram(Protocol):
    """Takes observations in seconds."""

    def observe(self, amount: float) -> None:
        """Count one."""


class TracedRequest(Protocol):
    """What is told of a request that holds the loop."""

    request_id: str
    route: str
    body_bytes: int
    """What has come of its body."""


class EventLoopMonitor:
    """Watches the loop on which `start` was called, until `close`."""

    def __init__(self, lag: Histogram, held: Histogram) -> None:
        """`lag` gets how late the loop was, `held` the part of it in which this process computed (`Spent.held`)."""
        self._lag = lag
        self._held = held
        self._requests: dict[asyncio.Task[Any] | None, TracedRequest] = {}
        self._block_limit = 0.0
        self._on_heartbeat: Callable[[float], None] | None = None
        self._deadline = float("inf")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_idle = False
        self._due = 0.0
        self._wake = threading.Lock()
        """Held while the thread may sleep on."""
        self._last_stall: tuple[float, _Stall] | None = None
        """When the beat was due that did not come, and what ran instead."""
        self._log = structlog.get_logger("gateway.event_loop")

    def exit_when_blocked(self, seconds: float, beaten: Callable[[float], None] | None = None) -> None:
        """End this process when its loop does not run for so many `seconds`; 0: never. For the main thread.

        `beaten` is called with the monotonic time of each beat. Call this before `start`.
        """
        self._on_heartbeat = beaten
        self._block_limit = seconds
        watchdog.install()

    def exit_within(self, seconds: float) -> None:
        """End this process in so many `seconds` from now, if it has not ended by itself."""
        self._deadline = time.monotonic() + seconds
        self._wake_watcher()

    def start(self) -> None:
        """Begin, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._clocks = CpuClocks()
        self._last = time.monotonic()
        self._due = self._last + _FIRST_HEARTBEAT_SECONDS
        self._handle = self._loop.call_later(_FIRST_HEARTBEAT_SECONDS, self._heartbeat)
        self._wake.acquire(blocking=False)
        threading.Thread(target=self._watch, name="event-loop-watch", daemon=True).start()

    def close(self) -> None:
        """Stop measuring. A process that is to end within a time is watched until it has."""
        if self._loop is not None:
            self._loop = None
            self._handle.cancel()
            self._clocks.close()
            self._due = float("inf")
            self._wake_watcher()

    def begin_request(self, request: TracedRequest) -> None:
        """Know that the current task works for this request."""
        self._requests[asyncio.current_task()] = request
        if self._is_idle:
            self._is_idle = False
            self._handle.cancel()
            self._schedule_heartbeat(time.monotonic(), HEARTBEAT_SECONDS)
            self._wake_watcher()  # it sleeps as long as the loop rests

    def end_request(self) -> None:
        """Know that the current task has done its work for its request."""
        self._requests.pop(asyncio.current_task(), None)

    def _heartbeat(self) -> None:
        now = time.monotonic()
        spent = self._clocks.elapsed()
        late = now - self._due
        if late > MIN_LAG_SECONDS:
            self._lag.observe(late)
            self._held.observe(spent.held_seconds(late))
            if late - spent.run_queue > LOGGED_LAG_SECONDS:
                self._log_stall(late, spent)
        if self._block_limit:
            watchdog.rearm(min(self._block_limit, max(self._deadline - now, 1.0)))
        if self._on_heartbeat:
            self._on_heartbeat(now)
        self._is_idle = not self._requests and spent.loop_thread < _IDLE_CPU_FRACTION * (now - self._last)
        self._last = now
        self._schedule_heartbeat(now, IDLE_HEARTBEAT_SECONDS if self._is_idle else HEARTBEAT_SECONDS)

    def _schedule_heartbeat(self, now: float, seconds: float) -> None:
        if self._loop is not None:
            self._due = now + seconds
            self._handle = self._loop.call_later(seconds, self._heartbeat)

    def _wake_watcher(self) -> None:
        if self._wake.locked():
            self._wake.release()

    def _log_stall(self, late: float, spent: CpuTime) -> None:
        due, seen = self._last_stall or (0.0, None)
        self._log.warning(
            "the event loop was held",
            seconds=round(late, 3),
            computing=round(spent.held_seconds(late), 3),
            **(seen.log_fields() if seen and due == self._due else {}),
        )

    def _watch(self) -> None:
        """Run in a thread: look when the loop is late, and end the process when it stays so."""
        stood, due = 0.0, -1.0
        while self._loop is not None or self._deadline != float("inf"):
            now = time.monotonic()
            if now >= self._deadline:
                watchdog.dump_and_exit(lambda: self._log.error("the process did not end in time, and is ended"))
            if due != self._due:
                stood, due = 0.0, self._due
            elif now >= due + LOGGED_LAG_SECONDS:
                if self._last_stall is None or self._last_stall[0] != due:
                    self._last_stall = due, self._inspect_loop()
                ran = self._last_stall[1].log_fields()
                tell = functools.partial(
                    self._log.error, "the event loop does not run", seconds=stood + LOGGED_LAG_SECONDS, **ran
                )
                if self._block_limit and stood >= self._block_limit - LOGGED_LAG_SECONDS:
                    watchdog.dump_and_exit(tell)
                if self._block_limit and stood >= self._block_limit / 2 > stood - LOGGED_LAG_SECONDS:
                    # Aside: whoever holds the loop may hold the log.
                    threading.Thread(target=tell, name="event-loop-held", daemon=True).start()
            wait = due + LOGGED_LAG_SECONDS - now
            if wait <= 0:
                # This thread's own steps are counted, not the clock: it was stopped where the loop was stopped.
                wait = LOGGED_LAG_SECONDS
                stood += LOGGED_LAG_SECONDS
            self._wake.acquire(timeout=max(0.0, min(wait, self._deadline - now, 3600.0)))

    def _inspect_loop(self) -> "_Stall":
        """See what the loop's thread runs now."""
        loop = self._loop
        task = asyncio.current_task(loop) if loop else None
        request = self._requests.get(task) if task else None
        return _Stall(request, _innermost_frames(sys._current_frames().get(self._thread)))


@dataclass(frozen=True, slots=True)
class _Stall:
    """What ran when the loop was late. Work of a request that another task does has no `request`."""

    request: TracedRequest | None
    where: list[str]

    def log_fields(self) -> dict[str, Any]:
        """As fields of a line of the log; by then the request may have found its route."""
        if self.request is None:
            return {"where": self.where}
        return {
            "request_id": self.request.request_id,
            "route": self.request.route or None,
            "body_bytes": self.request.body_bytes,
            "where": self.where,
        }


def _innermost_frames(frame: FrameType | None) -> list[str]:
    """Return the innermost frames, the first of which runs, each as `module:line function`."""
    found: list[str] = []
    while frame is not None and len(found) < _MAX_FRAMES:
        found.append(f"{frame.f_globals.get('__name__', '?')}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return found
