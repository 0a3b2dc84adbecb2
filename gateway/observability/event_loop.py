"""Monitors the event loop: measures its lag, logs the code that blocks it, and ends the process if it hangs.

A heartbeat on the loop measures its own lag: every 50 ms while requests are open, every half second when idle. A stall
is measured up to one such interval too short. Lag below 5 ms is not observed; larger lag is observed in both
histograms, so that their counts agree. A watcher thread sleeps until the next heartbeat is a quarter of a second late,
and only then inspects what the loop's thread executes.
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
"""Interval of the heartbeat while requests are open or the loop computes, in seconds."""
IDLE_HEARTBEAT_SECONDS = 0.5
MIN_LAG_SECONDS = 0.005
"""Lag in seconds above which it is observed: the loop rounds its timers to milliseconds."""
LOGGED_LAG_SECONDS = 0.25
"""Length of a stall from which on it is logged, in seconds."""

_IDLE_CPU_FRACTION = 0.05
"""Fraction of CPU time from which on the loop counts as busy, even without open requests."""
_FIRST_HEARTBEAT_SECONDS = 1.0
"""Seconds until the first heartbeat: the server runs a full garbage collection as it starts."""
_MAX_FRAMES = 8


class Histogram(Protocol):
    """A histogram of seconds."""

    def observe(self, amount: float) -> None:
        """Count one observation."""


class TracedRequest(Protocol):
    """A request, as far as the log line of a stall describes it."""

    request_id: str
    route: str
    body_bytes: int
    """Bytes of the body received so far."""


class EventLoopMonitor:
    """Monitors the loop on which `start` is called, until `close`."""

    def __init__(self, lag: Histogram, held: Histogram) -> None:
        """`lag` observes the lag of the loop, `held` the part that this process caused (`CpuTime.held_seconds`)."""
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
        """Locked while the watcher thread may sleep."""
        self._last_stall: tuple[float, _Stall] | None = None
        """The time at which the missing heartbeat was due, and the code that ran instead."""
        self._log = structlog.get_logger("gateway.event_loop")

    def exit_when_blocked(self, seconds: float, on_heartbeat: Callable[[float], None] | None = None) -> None:
        """End this process when its loop is blocked for `seconds`; 0: never.

        `on_heartbeat` is called with the monotonic time of each heartbeat. Call this in the main thread, before
        `start`.
        """
        self._on_heartbeat = on_heartbeat
        self._block_limit = seconds
        watchdog.install()

    def exit_within(self, seconds: float) -> None:
        """End this process `seconds` from now if it has not ended by itself."""
        self._deadline = time.monotonic() + seconds
        self._wake_watcher()

    def start(self) -> None:
        """Begin to monitor the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._clocks = CpuClocks()
        self._last = time.monotonic()
        self._due = self._last + _FIRST_HEARTBEAT_SECONDS
        self._handle = self._loop.call_later(_FIRST_HEARTBEAT_SECONDS, self._heartbeat)
        self._wake.acquire(blocking=False)
        threading.Thread(target=self._watch, name="event-loop-watch", daemon=True).start()

    def close(self) -> None:
        """Stop measuring. The deadline of `exit_within` stays in force."""
        if self._loop is not None:
            self._loop = None
            self._handle.cancel()
            self._clocks.close()
            self._due = float("inf")
            self._wake_watcher()

    def begin_request(self, request: TracedRequest) -> None:
        """Attribute the work of the current asyncio task to this request."""
        self._requests[asyncio.current_task()] = request
        if self._is_idle:
            self._is_idle = False
            self._handle.cancel()
            self._schedule_heartbeat(time.monotonic(), HEARTBEAT_SECONDS)
            self._wake_watcher()  # its sleep is as long as the idle interval

    def end_request(self) -> None:
        """End the attribution of the current asyncio task."""
        self._requests.pop(asyncio.current_task(), None)

    def _heartbeat(self) -> None:
        now = time.monotonic()
        spent = self._clocks.elapsed()
        lag = now - self._due
        if lag > MIN_LAG_SECONDS:
            self._lag.observe(lag)
            self._held.observe(spent.held_seconds(lag))
            if lag - spent.run_queue > LOGGED_LAG_SECONDS:
                self._log_stall(lag, spent)
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

    def _log_stall(self, lag: float, spent: CpuTime) -> None:
        due, stall = self._last_stall or (0.0, None)
        self._log.warning(
            "the event loop was held",
            seconds=round(lag, 3),
            computing=round(spent.held_seconds(lag), 3),
            **(stall.log_fields() if stall and due == self._due else {}),
        )

    def _watch(self) -> None:
        """Run in a thread: inspect a late loop, and end the process if the loop stays blocked."""
        blocked, due = 0.0, -1.0
        while self._loop is not None or self._deadline != float("inf"):
            now = time.monotonic()
            if now >= self._deadline:
                watchdog.dump_and_exit(lambda: self._log.error("the process did not end in time and is killed"))
            if due != self._due:
                blocked, due = 0.0, self._due
            elif now >= due + LOGGED_LAG_SECONDS:
                if self._last_stall is None or self._last_stall[0] != due:
                    self._last_stall = due, self._inspect_loop()
                stall_fields = self._last_stall[1].log_fields()
                write_log = functools.partial(
                    self._log.error, "the event loop is blocked", seconds=blocked + LOGGED_LAG_SECONDS, **stall_fields
                )
                if self._block_limit and blocked >= self._block_limit - LOGGED_LAG_SECONDS:
                    watchdog.dump_and_exit(write_log)
                if self._block_limit and blocked >= self._block_limit / 2 > blocked - LOGGED_LAG_SECONDS:
                    # In a thread of its own: whatever blocks the loop may also block the log.
                    threading.Thread(target=write_log, name="event-loop-held", daemon=True).start()
            wait = due + LOGGED_LAG_SECONDS - now
            if wait <= 0:
                # Count the steps of this thread, not the clock: a paused machine stops this thread as well.
                wait = LOGGED_LAG_SECONDS
                blocked += LOGGED_LAG_SECONDS
            self._wake.acquire(timeout=max(0.0, min(wait, self._deadline - now, 3600.0)))

    def _inspect_loop(self) -> "_Stall":
        """Return the stack frames that the loop's thread executes now, and the request that they belong to."""
        loop = self._loop
        task = asyncio.current_task(loop) if loop else None
        request = self._requests.get(task) if task else None
        return _Stall(request, _innermost_frames(sys._current_frames().get(self._thread)))


@dataclass(frozen=True, slots=True)
class _Stall:
    """The request whose task blocked the event loop, if known, and the innermost stack frames of the loop's thread."""

    request: TracedRequest | None
    where: list[str]

    def log_fields(self) -> dict[str, Any]:
        """Return the fields of a log line. By then the request may have got its route."""
        if self.request is None:
            return {"where": self.where}
        return {
            "request_id": self.request.request_id,
            "route": self.request.route or None,
            "body_bytes": self.request.body_bytes,
            "where": self.where,
        }


def _innermost_frames(frame: FrameType | None) -> list[str]:
    """Return up to 8 innermost frames as `module:line function`; the first is the one that executes."""
    frames: list[str] = []
    while frame is not None and len(frames) < _MAX_FRAMES:
        frames.append(f"{frame.f_globals.get('__name__', '?')}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return frames
