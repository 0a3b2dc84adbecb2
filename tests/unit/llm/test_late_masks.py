"""The wait of a decode step for late grammar masks."""

import numpy as np
import pytest

from backends.llm.batching import scheduler as scheduler_module
from backends.llm.batching import sequence as sequence_module

PROMPT = [10, 20, 30]


class Clock:
    """Replaces the module `time`: time passes only while a mask is awaited."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


class NeverReady:
    """A grammar with its first mask only, until `is_ready` is set. It records the length of each wait for another."""

    def __init__(self, clock):
        self.clock, self.waits, self.is_ready = clock, [], False

    def new_matcher(self):
        return NeverReady._Matcher(self)

    class _Matcher:
        is_complete = False

        def __init__(self, grammar):
            self._grammar, self._first = grammar, True

        def banned_tokens(self, seconds):
            if self._first or self._grammar.is_ready:
                return np.zeros(259, np.bool_)
            self._grammar.clock.now += seconds
            self._grammar.waits.append(seconds)
            return None

        def consume(self, token):
            self._first = False
            return False

        def close(self):
            pass


def test_late_masks_share_the_wait_of_one_step(manual_engine, collect, monkeypatch):
    clock = Clock()
    for module in (scheduler_module, sequence_module):
        monkeypatch.setattr(module, "time", clock)
    engine, _ = manual_engine(max_rows=16, chunk_size=64)
    grammar = NeverReady(clock)
    collectors = [collect(engine, PROMPT, grammar, max_tokens=9) for _ in range(15)]
    unconstrained = collect(engine, PROMPT, max_tokens=50)
    engine.iterate_until(lambda: all(collector.has_first_token.is_set() for collector in (*collectors, unconstrained)))
    grammar.waits.clear()
    num_tokens_before = unconstrained.num_tokens
    engine.iterate()
    assert unconstrained.num_tokens == num_tokens_before + 1 and len(grammar.waits) == 15
    assert sum(grammar.waits) == pytest.approx(0.002) and min(grammar.waits) == 0
    assert not any(collector.ended.is_set() for collector in collectors)


def test_sequence_with_a_late_mask_is_moved_to_a_released_slot(manual_engine, collect, monkeypatch):
    clock = Clock()
    for module in (scheduler_module, sequence_module):
        monkeypatch.setattr(module, "time", clock)
    engine, runner = manual_engine(max_rows=2)
    grammar = NeverReady(clock)
    unconstrained = collect(engine, [11, 20, 30], max_tokens=5)
    late = collect(engine, PROMPT, grammar, max_tokens=9)
    engine.iterate_until(unconstrained.ended.is_set)
    assert late.num_tokens == 1 and ("swap", len(PROMPT)) in runner.calls
    grammar.is_ready = True
    engine.iterate_until(late.ended.is_set)
    assert late.texts == [engine._tokenizer.decode(runner.expected_answer(PROMPT, 9))]
