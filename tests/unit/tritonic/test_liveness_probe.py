"""When something counts as silent: after several probes in a row, and never because the asker was stopped."""

import threading
from collections.abc import Callable

from tritonic.liveness_probe import LivenessProbe


class Asked:
    """Answers as it is told, at once."""

    def __init__(self, timeout: float = 10.0) -> None:
        self.now = 100.0
        self.alive = True
        self.probes: list[float] = []
        self.liveness = LivenessProbe(self._answer, timeout, clock=lambda: self.now)

    def _answer(self, seconds: float) -> bool:
        self.probes.append(self.now)
        return self.alive

    def after(self, seconds: float) -> float | None:
        self.now += seconds
        found = self.liveness.silent_seconds()
        if self.liveness._probe is not None:
            self.liveness._probe.join()
        return found


def until(asked: Asked, seconds: float) -> list[float | None]:
    return [asked.after(1.0) for _ in range(int(seconds))]


def test_what_answers_is_asked_every_few_seconds() -> None:
    asked = Asked()
    assert until(asked, 30) == [None] * 30
    assert 5 <= len(asked.probes) <= 7


def test_what_is_silent_is_at_fault_after_the_timeout() -> None:
    asked = Asked()
    until(asked, 10)
    asked.alive = False
    found = until(asked, 15)
    first = next(number for number, each in enumerate(found) if each is not None)
    assert 10 <= first <= 16
    assert found[first] is not None and found[first] >= 10
    asked.alive = True
    until(asked, 5)
    assert asked.after(1) is None


def test_one_probe_that_failed_while_all_was_stopped_proves_nothing() -> None:
    asked = Asked()
    until(asked, 4)
    asked.alive = False
    asked.after(3)
    asked.alive = True
    assert asked.after(600) is None
    assert until(asked, 10) == [None] * 10


def test_nobody_is_asked_where_the_timeout_is_off() -> None:
    asked = Asked(0)
    asked.alive = False
    assert until(asked, 100) == [None] * 100 and asked.probes == []


def test_a_probe_that_waits_keeps_nobody() -> None:
    free = threading.Event()
    now = [0.0]
    answers: Callable[[float], bool] = lambda seconds: free.wait(20)  # noqa: E731
    liveness = LivenessProbe(answers, 10, clock=lambda: now[0])
    for _ in range(100):
        now[0] += 1
        assert liveness.silent_seconds() is None
    free.set()
