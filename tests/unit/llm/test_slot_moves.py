"""Rows that change places: pages of any head size, and what becomes of everybody where a move fails halfway."""

import numpy as np
import pytest

from backends.llm.batching.slots import SlotsCorrupted
from backends.llm.ort import page_remapping
from backends.llm.ort.kv_cache import KVCache
from backends.serving.errors import EngineFailed

PROMPT = [10, 20, 30]


class FailingAfter:
    """The C library, whose `mremap` fails from a call on."""

    def __init__(self, libc, calls):
        self._libc, self.left = libc, calls
        self.mmap, self.madvise = libc.mmap, libc.madvise

    @property
    def mremap(self):
        real = self._libc.mremap

        def move(*arguments):
            self.left -= 1
            real.restype, real.argtypes = move.restype, move.argtypes
            return real(*arguments) if self.left >= 0 else page_remapping._FAILED

        return move


@pytest.fixture
def memory():
    made = KVCache(tensors=4, num_slots=3, heads=2, context=200, head_size=16, dtype=np.float32)
    yield made
    made.close()


def test_a_move_that_fails_halfway_is_told_and_the_next_one_copies(memory, monkeypatch):
    if not page_remapping.remap_pages([], memory._slot_bytes):
        pytest.skip("This system moves no pages.")
    part = np.random.default_rng(0).random((4, 2, 30, 16), np.float32)
    memory.load(0, 0, part)
    memory.load(1, 0, part + 1)
    failing = FailingAfter(page_remapping._libc(), 1)
    monkeypatch.setattr(page_remapping, "_libc", lambda: failing)
    with pytest.raises(OSError, match="could not be moved"):
        memory.swap(0, 2, (30, 0))
    assert failing.left == -1
    for row in (0, 2):  # whatever they hold, they can be forgotten and written
        memory.release(row)
        memory.load(row, 0, part)
    memory.swap(1, 2, (30, 30))
    assert failing.left == -1  # no page was moved again
    np.testing.assert_array_equal(memory.save(2, 0, 30), part + 1)
    np.testing.assert_array_equal(memory.save(1, 0, 30), part)


def test_where_the_first_page_cannot_be_moved_rows_are_copied(memory, monkeypatch):
    part = np.random.default_rng(0).random((4, 2, 30, 16), np.float32)
    memory.load(0, 0, part)
    failing = FailingAfter(page_remapping._libc(), 0)
    monkeypatch.setattr(page_remapping, "_libc", lambda: failing)
    memory.swap(0, 2, (30, 0))
    np.testing.assert_array_equal(memory.save(2, 0, 30), part)
    assert not memory.save(0, 0, 30).any()


def half_swap(runner, swaps):
    """Rows that lose what they hold on the way: the first `swap` moves one over the other, and raises."""
    swap = runner.swap

    def move(one, other, lengths):
        swaps.append((one, other))
        if len(swaps) > 1:
            return swap(one, other, lengths)
        runner.stored_tokens[other], runner.stored_tokens[one] = runner.stored_tokens[one].copy(), -1
        raise OSError("A row could not be moved.")

    return move


def test_a_row_that_is_lost_on_its_way_is_a_fault_of_the_whole_batch(manual_engine, collect, monkeypatch):
    engine, runner = manual_engine(max_rows=3, chunk_size=32)
    collectors = [collect(engine, [token, 20, 30], max_tokens=count) for token, count in ((11, 4), (12, 60), (13, 60))]
    swaps = []
    monkeypatch.setattr(runner, "swap", half_swap(runner, swaps))
    with pytest.raises(SlotsCorrupted, match="could not be swapped"):
        engine.iterate_until(lambda: False)
    assert collectors[0].ended.is_set() and len(swaps) == 1


def test_a_prompt_that_cannot_join_is_no_failure_of_its_own(manual_engine, collect, monkeypatch):
    """A short prompt overtakes a long one, and joins in the row where that one is read."""
    engine, runner = manual_engine(max_rows=3, chunk_size=8)
    long = collect(engine, [5] * 300, max_tokens=10)
    engine.iterate()
    short = collect(engine, PROMPT, max_tokens=60)
    swaps = []
    monkeypatch.setattr(runner, "swap", half_swap(runner, swaps))
    with pytest.raises(SlotsCorrupted):
        engine.iterate_until(lambda: False)
    assert len(swaps) == 1 and not long.ended.is_set() and not short.ended.is_set()


@pytest.mark.parametrize("max_tokens", [1, 4])
def test_the_engine_begins_anew_after_a_row_was_lost(scripted_engine, collect, tokenizer, monkeypatch, max_tokens):
    engine, runner = scripted_engine(max_rows=3, chunk_size=32, seconds=0.001)
    others = [collect(engine, [token, 20, 30], max_tokens=900) for token in (11, 12)]
    for other in others:
        other.has_first_token.wait()
    swaps = []
    monkeypatch.setattr(runner, "swap", half_swap(runner, swaps))
    engine.cancel(others[0].generation)  # its row is filled by the last one
    assert isinstance(others[1].wait().error, EngineFailed)
    assert tokenizer.decode(runner.expected_answer([12, 20, 30], 900)).startswith(others[1].texts[0])
    again = collect(engine, [11, 20, 30], max_tokens=max_tokens).wait()
    assert again.texts == [tokenizer.decode(runner.expected_answer([11, 20, 30], max_tokens))] and len(swaps) == 1


@pytest.mark.parametrize(
    ("head_size", "dtype"), [(80, np.float32), (96, np.float16), (64, np.float32), (2560, np.float32)]
)
def test_a_row_of_any_head_size_can_be_forgotten_alone(head_size, dtype):
    memory = KVCache(tensors=2, num_slots=3, heads=1, context=130, head_size=head_size, dtype=dtype)
    part = np.ones((2, 1, 130, head_size), dtype)
    for row in range(3):
        memory.load(row, 0, part * (row + 1))
    memory.release(1)
    assert not memory.save(1, 0, 130).any()
    for row in (0, 2):
        np.testing.assert_array_equal(memory.save(row, 0, 130), part * (row + 1))
    assert memory.kv_bytes(1) % 4096 == 0 and memory.kv_bytes(130) >= part.nbytes
    memory.close()


def test_who_loses_its_row_amid_its_prompt_still_asks_for_the_whole_of_it(manual_engine, collect):
    """Else it is given a row too early, reads, and loses it again."""
    engine, runner = manual_engine(max_rows=2, chunk_size=16, kv_memory=2 * 440, prefix_cache=0)
    old = collect(engine, [5] * 60, max_tokens=200)
    engine.iterate_until(old.has_first_token.is_set)
    young = collect(engine, [6] * 250, max_tokens=10)
    engine.iterate_until(lambda: any(sequence.length >= 32 for sequence in engine._scheduler.slots.prefilling))
    runner.kv_cache_bytes = 2 * 300  # too little for both
    engine._scheduler._preempt(engine._scheduler.slots.last_arrived())
    engine.iterate_until(lambda: young.ended.is_set() and old.ended.is_set())
    assert engine.stats.preemptions == 1
