"""Something counts as silent after several failed probes in a row, and not because the prober itself was stopped."""

import threading
from collections.abc import Callable

from tritonic.liveness_probe import LivenessProbe


class FakeTarget:
    """Answers each probe at once, as the test sets it."""

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


def until(target: FakeTarget, seconds: float) -> list[float | None]:
    return [target.after(1.0) for _ in range(int(seconds))]


def test_an_answering_target_is_probed_every_few_seconds() -> None:
    target = FakeTarget()
    assert until(target, 30) == [None] * 30
    assert 5 <= len(target.probes) <= 7


def test_a_silent_target_is_reported_after_the_timeout() -> None:
    target = FakeTarget()
    until(target, 10)
    target.alive = False
    found = until(target, 15)
    first = next(number for number, each in enumerate(found) if each is not None)
    assert 10 <= first <= 16
    silent = found[first]
    assert silent is not None and silent >= 10
    target.alive = True
    until(target, 5)
    assert target.after(1) is None


def test_one_failed_probe_before_a_pause_of_the_prober_is_not_reported() -> None:
    target = FakeTarget()
    until(target, 4)
    target.alive = False
    target.after(3)
    target.alive = True
    assert target.after(600) is None
    assert until(target, 10) == [None] * 10


def test_a_timeout_of_0_disables_the_probe() -> None:
    target = FakeTarget(0)
    target.alive = False
    assert until(target, 100) == [None] * 100 and target.probes == []


def test_a_waiting_probe_blocks_no_caller() -> None:
    release = threading.Event()
    now = [0.0]
    answers: Callable[[float], bool] = lambda seconds: release.wait(60)  # noqa: E731
    liveness = LivenessProbe(answers, 10, clock=lambda: now[0])
    for _ in range(100):
        now[0] += 1
        assert liveness.silent_seconds() is None
    release.set()
