"""Keeps the parts of an installation running: what ends is started again, after a delay that grows."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tritonic.backoff import Backoff
from tritonic.child import describe_exit

Report = Callable[[str], None]

_LOOK_SECONDS = 1.0
"""Between two looks for faults of a part that runs."""


class Part(Protocol):
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

    def keep_log_small(self) -> None:
        """Set aside what it has written, where that is much."""

    def kill(self) -> None:
        """End it at once, without asking."""

    def stop(self) -> None:
        """End it and everything it started."""

    def last_words(self) -> list[str]:
        """The lines of its log that say why it ended."""


class Supervised:
    """One part, and where it stands: running, or waiting to be started again."""

    def __init__(self, part: Part, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        """`part` must have been started already, and be ready."""
        self.part = part
        self._report = report
        self._clock = clock
        self._backoff = Backoff()
        self._ready_since: float | None = clock()
        self._started = self._looked = self._tidied = clock()
        self._due: float | None = None

    def step(self) -> None:
        """Look at the part once and do what is due."""
        now = self._clock()
        if self._due is not None:
            if now >= self._due:
                self._start(now)
            return
        self._keep_log_small(now)
        status = self.part.poll()
        if status is not None:
            healthy_for = now - self._ready_since if self._ready_since is not None else 0.0
            # What is killed has no last words; those in the log are of something else.
            why = [] if "killed" in describe_exit(status) else self.part.last_words()
            self._wait(now, healthy_for, describe_exit(status), why)
        elif self._ready_since is not None:
            if now - self._looked >= _LOOK_SECONDS:
                self._looked = now
                if (fault := self.part.fault()) is not None:
                    self._report(f"{self.part.name} {fault}; it is ended and started again.")
                    self.part.kill()
        elif self.part.is_ready():
            self._ready_since = now
            self.part.fault()  # so that it knows from the first moment what can be lost
            self._report(f"{self.part.name} is back, {now - self._started:.1f} s after it was started.")

    def _keep_log_small(self, now: float) -> None:
        if now - self._tidied >= _LOOK_SECONDS:
            self._tidied = now
            self.part.keep_log_small()

    def _start(self, now: float) -> None:
        self._due, self._ready_since, self._started = None, None, now
        try:
            self.part.start()
        except (OSError, RuntimeError) as error:
            self._wait(now, 0.0, "could not be started", [str(error)])

    def _wait(self, now: float, healthy_for: float, what: str, why: list[str]) -> None:
        delay = self._backoff.delay(healthy_for)
        self._due = now + delay
        reason = f" It said: {why[-1]}" if why else ""
        self._report(f"{self.part.name} {what}; it is started again in {delay:g} s.{reason}")


def supervise(parts: Sequence[Supervised], stopping: threading.Event, interval: float = 0.2) -> None:
    """Look after the parts until `stopping` is set."""
    while not stopping.wait(interval):
        for part in parts:
            part.step()
