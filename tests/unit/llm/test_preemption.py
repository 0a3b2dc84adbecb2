"""Preemption: if KV-cache memory runs out, no request fails and every answer stays the same."""

import random

import numpy as np
import psutil
import pytest

from backends.llm.engine import Engine
from backends.llm.model_loader import load_model
from backends.llm.ort.kv_cache import KVCache
from backends.llm.ort.options import OnnxRuntimeOptions
from backends.serving.errors import ContextLengthExceeded
from backends.serving.tokenizer import load_tokenizer
from tests.unit.llm.waiting import wait_until


def prompt(seed, size):
    return [int(token) for token in np.random.default_rng(seed).integers(10, 200, size)]


def test_last_arrived_sequences_are_preempted_and_resume_with_same_tokens(manual_engine, collect, tokenizer):
    engine, runner = manual_engine(max_rows=4, kv_memory=2 * 400, prefix_cache=0)
    requests = [(prompt(seed, 40), 150) for seed in range(4)]  # four of 190 tokens, and memory for 400
    collectors = [collect(engine, tokens, max_tokens=count) for tokens, count in requests]
    while not all(collector.ended.is_set() for collector in collectors):
        engine.iterate()
        assert runner.used_bytes() <= 800
    assert [collector.texts[0] for collector in collectors] == [
        tokenizer.decode(runner.expected_answer(*request)) for request in requests
    ]
    assert [collector.num_tokens for collector in collectors] == [150] * 4 and all(
        collector.finish_reasons == ["length"] for collector in collectors
    )
    assert 1 <= engine.stats.preemptions <= 6  # no sequence gets a slot only to lose it again
    # The first sequence was never recomputed.
    steps = [call for call in runner.calls if call[0] == "decode"]
    assert len(steps) < 4 * 200
    assert (runner.stored_tokens == -1).all() and engine.stats.row_bytes == 0


def test_first_arrived_sequence_ends_first_under_preemption(manual_engine, collect):
    engine, _ = manual_engine(max_rows=3, kv_memory=2 * 300)
    collectors = [collect(engine, prompt(seed, 20), max_tokens=200) for seed in range(3)]
    engine.iterate_until(collectors[0].ended.is_set)
    assert not collectors[1].ended.is_set() and not collectors[2].ended.is_set()
    engine.iterate_until(lambda: collectors[1].ended.is_set() and collectors[2].ended.is_set())
    assert engine.stats.preemptions >= 1


def test_prefix_cache_is_evicted_before_a_sequence_is_preempted(manual_engine, collect):
    engine, runner = manual_engine(max_rows=2, kv_memory=2 * 600 + 4 * 1100, prefix_cache=2**20)
    for seed in range(4):
        engine.iterate_until(collect(engine, prompt(seed, 100), max_tokens=1).ended.is_set)
    assert engine.stats.prefix_cache_bytes > 4 * 1100
    collectors = [collect(engine, prompt(seed, 300), max_tokens=400) for seed in (10, 11)]
    while not all(collector.ended.is_set() for collector in collectors):
        engine.iterate()
        assert runner.used_bytes() + engine.stats.prefix_cache_bytes <= runner.kv_cache_bytes
    assert engine.stats.preemptions == 0


def test_prompt_waits_for_memory_and_blocks_later_ones(manual_engine, collect):
    engine, runner = manual_engine(max_rows=4, chunk_size=50, kv_memory=2 * 500)
    first = collect(engine, prompt(1, 300), max_tokens=100)
    engine.iterate_until(first.has_first_token.is_set)
    second = collect(engine, prompt(2, 200), max_tokens=10)
    later = [collect(engine, prompt(seed, 300), max_tokens=10) for seed in (3, 4)]
    for _ in range(20):
        engine.iterate()
    assert engine.stats.rows_active == 1 and engine.stats.rows_waiting == 3
    engine.iterate_until(second.ended.is_set)
    assert first.ended.is_set()
    engine.iterate_until(lambda: all(collector.ended.is_set() for collector in later))
    assert runner.used_bytes() == 0


def test_single_sequence_may_fill_all_memory(manual_engine, collect, tokenizer):
    engine, runner = manual_engine(context_length=200, kv_memory=400)
    first = collect(engine, prompt(1, 150))
    second = collect(engine, prompt(2, 150))
    engine.iterate_until(lambda: first.ended.is_set() and second.ended.is_set())
    assert (first.num_tokens, second.num_tokens) == (50, 50) and first.finish_reasons == ["length"]
    assert first.texts == [tokenizer.decode(runner.expected_answer(prompt(1, 150), 50))]
    with pytest.raises(ContextLengthExceeded):
        collect(engine, prompt(1, 200))


def test_answers_of_one_request_are_preempted_and_resume_with_same_tokens(manual_engine, collect, tokenizer):
    engine, runner = manual_engine(max_rows=4, kv_memory=2 * 250)
    many = collect(engine, prompt(1, 60), n=4, max_tokens=100)
    engine.iterate_until(many.ended.is_set)
    assert many.texts == [tokenizer.decode(runner.expected_answer(prompt(1, 60), 100))] * 4
    assert engine.stats.preemptions >= 1


def test_cancelling_a_preempted_request(manual_engine, collect):
    engine, runner = manual_engine(max_rows=2, kv_memory=2 * 260)
    collectors = [collect(engine, prompt(seed, 40), max_tokens=150) for seed in range(2)]
    engine.iterate_until(lambda: engine.stats.preemptions == 1)
    engine.cancel(collectors[1].generation)
    engine.iterate_until(collectors[0].ended.is_set)
    assert collectors[1].error and collectors[0].error is None
    assert (runner.stored_tokens == -1).all() and engine.stats.rows_waiting == 0 and not engine._groups


def test_sequence_preempted_during_recompute_reserves_all_its_tokens(manual_engine, collect, tokenizer):
    """Three older sequences grow. One ends, so the youngest is admitted and recomputed, but preempted once more."""
    engine, runner = manual_engine(max_rows=4, kv_memory=2 * 800, prefix_cache=0)
    requests = [(prompt(seed, 40), count) for seed, count in enumerate((400, 220, 400, 400))]
    collectors = [collect(engine, tokens, max_tokens=count) for tokens, count in requests]
    preempted = []
    while not all(collector.ended.is_set() for collector in collectors):
        lengths = {sequence: sequence.length for sequence in engine._scheduler.slots}
        engine.iterate()
        for (entry,) in engine._waiting._groups.values():
            num_generated = next(
                collector.num_tokens
                for collector in collectors
                if collector.generation is entry.sequence.group.generation
            )
            assert entry.reserved_tokens >= 40 + num_generated
            if entry.sequence in lengths:
                preempted.append((lengths[entry.sequence], num_generated))
    assert any(length + 64 < 40 + num_generated for length, num_generated in preempted), (
        "no sequence was preempted during recompute"
    )
    assert [collector.texts[0] for collector in collectors] == [
        tokenizer.decode(runner.expected_answer(*request)) for request in requests
    ]


def test_seed_gives_the_same_text_with_and_without_preemption(manual_engine, collect, monkeypatch):
    def texts(**options):
        engine, runner = manual_engine(max_rows=3, **options)
        original = runner._logits
        monkeypatch.setattr(runner, "_logits", lambda slot, length: original(slot, length) * 0.2)
        sampling = {"max_tokens": 90, "temperature": 1.0, "n": 2, "ignore_eos": True}
        collectors = [collect(engine, prompt(seed, 40), seed=seed, **sampling) for seed in (1, 2)]
        engine.iterate_until(lambda: all(collector.ended.is_set() for collector in collectors))
        return [collector.texts for collector in collectors], engine.stats.preemptions

    texts_with_memory, num_preemptions_with_memory = texts()
    texts_without_memory, num_preemptions_without_memory = texts(kv_memory=2 * 240)
    assert texts_with_memory == texts_without_memory
    assert num_preemptions_with_memory == 0 and num_preemptions_without_memory >= 2


def test_random_requests_with_little_memory_get_the_same_tokens_as_alone(scripted_engine, collect, tokenizer):
    engine, runner = scripted_engine(max_rows=6, max_waiting=200, kv_memory=2 * 500, seconds=0.0002)
    rng = random.Random(11)
    collectors = []
    for number in range(80):
        tokens = prompt(number % 9, rng.randrange(1, 120))
        count = rng.randrange(1, 300)
        collectors.append((collect(engine, tokens, max_tokens=count), tokens, count))
        if rng.random() < 0.2:
            engine.cancel(rng.choice(collectors)[0].generation)
    for collector, tokens, count in collectors:
        collector.wait()
        assert collector.error or collector.texts[0] == tokenizer.decode(runner.expected_answer(tokens, count))
    wait_until(lambda: engine.stats.rows_active == engine.stats.row_bytes == 0)
    assert engine.stats.preemptions > 0 and engine.stats.rows_waiting == 0 and (runner.stored_tokens == -1).all()


@pytest.fixture
def start(export):
    """Start engines on a real export."""
    engines: list[Engine] = []

    def make(**options):
        folder = export("int8")
        engines.append(
            load_model(folder, load_tokenizer(folder), OnnxRuntimeOptions(max_rows=8, threads=2, **options)).engine
        )
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


TOKEN_BYTES = 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads, head size, float32


def test_cold_cache_warm_cache_and_preemption_give_the_same_text(start, collect):
    rng = np.random.default_rng(5)
    trunk = rng.integers(3, 259, 500)
    requests = [np.concatenate([trunk[: 60 * number], rng.integers(3, 259, 30)]) for number in range(8)]
    options = [{"temperature": 0.0}] * 4 + [{"temperature": 1.2, "seed": number} for number in range(4)]

    def texts(engine, concurrent):
        collectors = []
        for tokens, sampling in zip(requests, options, strict=True):
            collectors.append(collect(engine, tokens, max_tokens=200, ignore_eos=True, **sampling))
            if not concurrent:
                collectors[-1].wait()
        return [collector.wait().texts for collector in collectors]

    uncached_texts = texts(start(prefix_cache=0), concurrent=False)
    caching = start(prefix_cache=2**22)
    for concurrent in (False, True, True):
        assert texts(caching, concurrent) == uncached_texts
    assert caching.stats.prefix_tokens_reused > 3000
    preempting = start(kv_memory=1200 * TOKEN_BYTES)
    for _ in range(2):
        assert texts(preempting, concurrent=True) == uncached_texts
    assert preempting.stats.preemptions > 0 and caching.stats.preemptions == 0


def test_context_that_does_not_fit_is_shortened(start, caplog):
    with caplog.at_level("WARNING"):  # a gateway that other tests started sets its own log level
        engine = start(kv_memory=300 * TOKEN_BYTES)
    assert 256 <= engine.context_length <= 300 and "context" in caplog.text
    with pytest.raises(ValueError, match="The KV cache may take"):
        start(kv_memory=20 * TOKEN_BYTES)


def test_memory_stays_flat(start, collect):
    engine = start(prefix_cache=2**21)
    rng = np.random.default_rng(6)

    def run(num_rounds):
        for _ in range(num_rounds):
            collectors = [collect(engine, rng.integers(3, 259, rng.integers(1, 600)), max_tokens=10) for _ in range(8)]
            for collector in collectors[::3]:
                engine.cancel(collector.generation)
            for collector in collectors:
                collector.wait()
            assert engine.stats.prefix_cache_bytes <= 2**21

    run(8)
    resident_before = psutil.Process().memory_info().rss
    run(24)
    assert psutil.Process().memory_info().rss - resident_before < 6 * 2**20
    engine.close()
    assert engine.stats.prefix_cache_bytes == engine.stats.row_bytes == engine.stats.rows_active == 0


@pytest.mark.parametrize("remaps_pages", [True, False])
def test_slots_are_swapped(remaps_pages):
    kv_cache = KVCache(tensors=6, num_slots=4, heads=3, context=200, head_size=16, dtype=np.float32)
    kv_cache._can_remap_pages = remaps_pages and kv_cache._can_remap_pages
    array = kv_cache._array[:, :4]
    rng = np.random.default_rng(0)
    expected = {slot: rng.random((6, 3, length, 16), np.float32) for slot, length in ((0, 70), (1, 0), (2, 150))}
    for slot, tokens in expected.items():
        kv_cache.load(slot, 0, tokens)
    for first, second in ((0, 2), (1, 2), (2, 0), (2, 3)):
        first_length, second_length = (expected[slot].shape[2] if slot in expected else 0 for slot in (first, second))
        kv_cache.swap(first, second, (first_length, second_length))
        expected[first], expected[second] = expected.get(second, expected[1][:, :, :0]), expected[first]
        for slot, tokens in expected.items():
            length = tokens.shape[2]
            np.testing.assert_array_equal(array[:, slot, :, :length], tokens)
            if not second_length:
                assert not array[:, first].any()
    saved = kv_cache.save(3, 3, 20)
    np.testing.assert_array_equal(saved, expected[3][:, :, 3:20])
    assert remaps_pages == kv_cache._can_remap_pages or not remaps_pages
    del array
    kv_cache.close()
