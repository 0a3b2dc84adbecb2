"""The time for which a decode step waits for late grammar masks."""

import numpy as np
import pytest

from backends.llm.batching import scheduler as batch_module
from backends.llm.batching import sequence as sequence_module

PROMPT = [10, 20, 30]


class Clock:
    """Replaces the module `time`: time passes only while a mask is awaited."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


class NeverReady:
    """A grammar that has its first mask only. It records how long each wait for another one was."""

    def __init__(self, clock):
        self.clock, self.waits = clock, []

    def new_matcher(self):
        return NeverReady._Matcher(self)

    class _Matcher:
        is_complete = False

        def __init__(self, grammar):
            self._grammar, self._first = grammar, True

        def banned_tokens(self, seconds):
            if self._first:
                return np.zeros(259, np.bool_)
            self._grammar.clock.now += seconds
            self._grammar.waits.append(seconds)
            return None

        def consume(self, token):
            self._first = False
            return False


def test_late_masks_share_the_wait_of_one_step(manual_engine, collect, monkeypatch):
    clock = Clock()
    for module in (batch_module, sequence_module):
        monkeypatch.setattr(module, "time", clock)
    engine, _ = manual_engine(max_rows=16, chunk_size=64)
    grammar = NeverReady(clock)
    collectors = [collect(engine, PROMPT, grammar, max_tokens=9) for _ in range(15)]
    free = collect(engine, PROMPT, max_tokens=50)
    engine.iterate_until(lambda: all(one.has_first_token.is_set() for one in (*collectors, free)))
    grammar.waits.clear()
    before = free.num_tokens
    engine.iterate()
    assert free.num_tokens == before + 1 and len(grammar.waits) == 15
    assert sum(grammar.waits) == pytest.approx(0.002) and min(grammar.waits) == 0
    assert not any(one.ended.is_set() for one in collectors)
