"""Keeps the parts of an installation running: what ends is started again, after a delay that grows."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tritonic.backoff import Backoff
from tritonic.child import describe_exit

Report = Callable[[str], None]

_CHECK_SECONDS = 1.0
"""Between two looks for faults of a part that runs."""


class Component(Protocol):
    """Something that runs, ends, and can be started again."""

    name: str

    def start(self) -> object:
        """Start it without waiting. Raises OSError or RuntimeError."""

    def is_ready(self) -> bool:
        """Whether it answers."""

    def poll(self) -> int | None:
        """Its exit status (128 + signal when killed), or None while it runs."""

    def fault(self) -> str | None:
        """Why it must be started again although it runs, as the end of a sentence; None while all is well."""

    def rotate_log(self) -> None:
        """Set aside what it has written, where that is much."""

    def kill(self) -> None:
        """End it at once, without asking."""

    def stop(self) -> None:
        """End it and everything it started."""

    def last_log_lines(self) -> list[str]:
        """The lines of its log that say why it ended."""


class SupervisedComponent:
    """One part, and where it stands: running, or waiting to be started again."""

    def __init__(self, part: Component, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        """`part` must have been started already, and be ready."""
        self.component = part
        self._report = report
        self._clock = clock
        self._backoff = Backoff()
        self._ready_since: float | None = clock()
        self._started = self._checked_at = self._rotated_at = clock()
        self._restart_at: float | None = None

    def step(self) -> None:
        """Look at the part once and do what is due."""
        now = self._clock()
        if self._restart_at is not None:
            if now >= self._restart_at:
                self._start(now)
            return
        self._rotate_log(now)
        status = self.component.poll()
        if status is not None:
            healthy_for = now - self._ready_since if self._ready_since is not None else 0.0
            # What is killed has no last words; those in the log are of something else.
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
            self.component.fault()  # so that it knows from the first moment what can be lost
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


def supervise(parts: Sequence[SupervisedComponent], stopping: threading.Event, interval: float = 0.2) -> None:
    """Look after the parts until `stopping` is set."""
    while not stopping.wait(interval):
        for part in parts:
            part.step()
