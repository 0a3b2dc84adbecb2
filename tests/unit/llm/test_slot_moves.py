"""Moves of slots: pages for any head size, and the consequences of a swap that fails halfway."""

from typing import Any

import numpy as np
import pytest

from backends.llm.batching.slots import SlotsCorrupted
from backends.llm.ort import page_remapping
from backends.llm.ort.kv_cache import KVCache
from backends.serving.errors import EngineFailed

PROMPT = [10, 20, 30]


class FailingLibrary:
    """The C library with an `mremap` that fails after `num_left` more calls."""

    def __init__(self, libc, num_left):
        self.libc, self.num_left = libc, num_left
        self.mmap, self.madvise = libc.mmap, libc.madvise

    @property
    def mremap(self):
        return FailingMremap(self)


class FailingMremap:
    """One call of `mremap`. The caller sets the two types, as for a function of the C library."""

    restype: Any
    argtypes: Any

    def __init__(self, library):
        self._library, self._mremap = library, library.libc.mremap

    def __call__(self, *arguments):
        self._library.num_left -= 1
        self._mremap.restype, self._mremap.argtypes = self.restype, self.argtypes
        return self._mremap(*arguments) if self._library.num_left >= 0 else page_remapping._FAILED


@pytest.fixture
def kv_cache():
    cache = KVCache(tensors=4, num_slots=3, heads=2, context=200, head_size=16, dtype=np.float32)
    yield cache
    cache.close()


def test_remapping_that_fails_halfway_raises_and_later_swaps_copy(kv_cache, monkeypatch):
    if not page_remapping.remap_pages([], kv_cache._slot_bytes):
        pytest.skip("This system cannot remap pages.")
    tokens = np.random.default_rng(0).random((4, 2, 30, 16), np.float32)
    kv_cache.load(0, 0, tokens)
    kv_cache.load(1, 0, tokens + 1)
    failing = FailingLibrary(page_remapping._libc(), 1)
    monkeypatch.setattr(page_remapping, "_libc", lambda: failing)
    with pytest.raises(OSError, match="could not be moved"):
        kv_cache.swap(0, 2, (30, 0))
    assert failing.num_left == -1
    for slot in (0, 2):  # their contents are unknown, but they can be released and written
        kv_cache.release(slot)
        kv_cache.load(slot, 0, tokens)
    kv_cache.swap(1, 2, (30, 30))
    assert failing.num_left == -1  # no page was remapped again
    np.testing.assert_array_equal(kv_cache.save(2, 0, 30), tokens + 1)
    np.testing.assert_array_equal(kv_cache.save(1, 0, 30), tokens)


def test_slots_are_copied_if_pages_cannot_be_remapped(kv_cache, monkeypatch):
    tokens = np.random.default_rng(0).random((4, 2, 30, 16), np.float32)
    kv_cache.load(0, 0, tokens)
    failing = FailingLibrary(page_remapping._libc(), 0)
    monkeypatch.setattr(page_remapping, "_libc", lambda: failing)
    kv_cache.swap(0, 2, (30, 0))
    np.testing.assert_array_equal(kv_cache.save(2, 0, 30), tokens)
    assert not kv_cache.save(0, 0, 30).any()


def failing_swap(runner, swaps):
    """Return a `swap` that loses data: its first call moves one slot over the other, and raises."""
    swap = runner.swap

    def failing_swap(first, second, lengths):
        swaps.append((first, second))
        if len(swaps) > 1:
            return swap(first, second, lengths)
        runner.stored_tokens[second], runner.stored_tokens[first] = runner.stored_tokens[first].copy(), -1
        raise OSError("A row could not be moved.")

    return failing_swap


def test_failed_swap_is_a_fault_of_the_whole_batch(manual_engine, collect, monkeypatch):
    engine, runner = manual_engine(max_rows=3, chunk_size=32)
    collectors = [collect(engine, [token, 20, 30], max_tokens=count) for token, count in ((11, 4), (12, 60), (13, 60))]
    swaps: list[tuple[int, int]] = []
    monkeypatch.setattr(runner, "swap", failing_swap(runner, swaps))
    with pytest.raises(SlotsCorrupted, match="could not be swapped"):
        engine.iterate_until(lambda: False)
    assert collectors[0].ended.is_set() and len(swaps) == 1


def test_failed_swap_at_the_end_of_a_prefill_fails_no_single_request(manual_engine, collect, monkeypatch):
    """A short prompt overtakes a long one, and joins the batch in the slot where the long one is being prefilled."""
    engine, runner = manual_engine(max_rows=3, chunk_size=8)
    long = collect(engine, [5] * 300, max_tokens=10)
    engine.iterate()
    short = collect(engine, PROMPT, max_tokens=60)
    swaps: list[tuple[int, int]] = []
    monkeypatch.setattr(runner, "swap", failing_swap(runner, swaps))
    with pytest.raises(SlotsCorrupted):
        engine.iterate_until(lambda: False)
    assert len(swaps) == 1 and not long.ended.is_set() and not short.ended.is_set()


@pytest.mark.parametrize("max_tokens", [1, 4])
def test_engine_serves_new_requests_after_a_failed_swap(scripted_engine, collect, tokenizer, monkeypatch, max_tokens):
    engine, runner = scripted_engine(max_rows=3, chunk_size=32, seconds=0.001)
    others = [collect(engine, [token, 20, 30], max_tokens=900) for token in (11, 12)]
    for other in others:
        other.has_first_token.wait()
    swaps: list[tuple[int, int]] = []
    monkeypatch.setattr(runner, "swap", failing_swap(runner, swaps))
    engine.cancel(others[0].generation)  # the last sequence moves into its slot
    assert isinstance(others[1].wait().error, EngineFailed)
    assert tokenizer.decode(runner.expected_answer([12, 20, 30], 900)).startswith(others[1].texts[0])
    answer = collect(engine, [11, 20, 30], max_tokens=max_tokens).wait()
    assert answer.texts == [tokenizer.decode(runner.expected_answer([11, 20, 30], max_tokens))] and len(swaps) == 1


@pytest.mark.parametrize(
    ("head_size", "dtype"), [(80, np.float32), (96, np.float16), (64, np.float32), (2560, np.float32)]
)
def test_releasing_a_slot_leaves_others_untouched_for_any_head_size(head_size, dtype):
    kv_cache = KVCache(tensors=2, num_slots=3, heads=1, context=130, head_size=head_size, dtype=dtype)
    tokens = np.ones((2, 1, 130, head_size), dtype)
    for slot in range(3):
        kv_cache.load(slot, 0, tokens * (slot + 1))
    kv_cache.release(1)
    assert not kv_cache.save(1, 0, 130).any()
    for slot in (0, 2):
        np.testing.assert_array_equal(kv_cache.save(slot, 0, 130), tokens * (slot + 1))
    assert kv_cache.kv_bytes(1) % 4096 == 0 and kv_cache.kv_bytes(130) >= tokens.nbytes
    kv_cache.close()


def test_sequence_preempted_during_prefill_reserves_its_whole_prompt(manual_engine, collect):
    """Otherwise it would be admitted too early, prefill, and lose its slot again."""
    engine, runner = manual_engine(max_rows=2, chunk_size=16, kv_memory=2 * 440, prefix_cache=0)
    old = collect(engine, [5] * 60, max_tokens=200)
    engine.iterate_until(old.has_first_token.is_set)
    young = collect(engine, [6] * 250, max_tokens=10)
    engine.iterate_until(lambda: any(sequence.length >= 32 for sequence in engine._scheduler.slots.prefilling))
    runner.kv_cache_bytes = 2 * 300  # not enough for both
    engine._scheduler._preempt(engine._scheduler.slots.last_arrived())
    engine.iterate_until(lambda: young.ended.is_set() and old.ended.is_set())
    assert engine.stats.preemptions == 1
