"""The supervisor: it checks Triton and the gateway, and restarts them with a growing back-off delay."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tritonic.backoff import Backoff
from tritonic.child import describe_exit

Report = Callable[[str], None]

_CHECK_SECONDS = 1.0
"""Seconds between two health checks of a running component, and between two checks of its log size."""


class Component(Protocol):
    """A program that the supervisor can check, stop and restart."""

    name: str

    def start(self) -> object:
        """Start it without waiting until it is ready. Raises OSError or RuntimeError."""

    def is_ready(self) -> bool:
        """Return whether the program is ready: it answers its callers."""

    def poll(self) -> int | None:
        """Return its exit status (128 + signal when killed), or None while it runs."""

    def fault(self) -> str | None:
        """Run one health check. Return why it must be restarted, as the end of a sentence, or None."""

    def rotate_log(self) -> None:
        """Rotate its log if it is large."""

    def kill(self) -> None:
        """Send SIGKILL."""

    def stop(self) -> None:
        """Stop it and everything it started."""

    def last_log_lines(self) -> list[str]:
        """Return the lines of its log that say why it ended."""


class SupervisedComponent:
    """A component and its state: starting, ready, or waiting for its restart."""

    def __init__(self, component: Component, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        """`component` must be started and ready. `report` gets each event as a sentence."""
        self.component = component
        self._report = report
        self._clock = clock
        self._backoff = Backoff()
        self._ready_since: float | None = clock()
        self._started = self._checked_at = self._rotated_at = clock()
        self._restart_at: float | None = None

    def step(self) -> None:
        """Check the component once, and restart it when that is due."""
        now = self._clock()
        if self._restart_at is not None:
            if now >= self._restart_at:
                self._start(now)
            return
        self._rotate_log(now)
        status = self.component.poll()
        if status is not None:
            healthy_for = now - self._ready_since if self._ready_since is not None else 0.0
            # A killed process logs no reason; the last lines of its log are about something else.
            why = [] if "killed" in describe_exit(status) else self.component.last_log_lines()
            self._schedule_restart(now, healthy_for, describe_exit(status), why)
        elif self._ready_since is not None:
            if now - self._checked_at >= _CHECK_SECONDS:
                self._checked_at = now
                if (fault := self.component.fault()) is not None:
                    self._report(f"{self.component.name} {fault}; it is ended and started again.")
                    self.component.kill()
        elif self.component.is_ready():
            self._ready_since = now
            self.component.fault()  # the first check records the model processes that exist
            self._report(f"{self.component.name} is back, {now - self._started:.1f} s after it was started.")

    def _rotate_log(self, now: float) -> None:
        if now - self._rotated_at >= _CHECK_SECONDS:
            self._rotated_at = now
            self.component.rotate_log()

    def _start(self, now: float) -> None:
        self._restart_at, self._ready_since, self._started = None, None, now
        try:
            self.component.start()
        except (OSError, RuntimeError) as error:
            self._schedule_restart(now, 0.0, "could not be started", [str(error)])

    def _schedule_restart(self, now: float, healthy_for: float, what: str, why: list[str]) -> None:
        delay = self._backoff.delay(healthy_for)
        self._restart_at = now + delay
        reason = f" It said: {why[-1]}" if why else ""
        self._report(f"{self.component.name} {what}; it is started again in {delay:g} s.{reason}")


def supervise(components: Sequence[SupervisedComponent], stopping: threading.Event, interval: float = 0.2) -> None:
    """Check all components every `interval` seconds until `stopping` is set."""
    while not stopping.wait(interval):
        for component in components:
            component.step()
