"""The prefix cache, with a scripted model runner that records which tokens were prefilled and which were copied."""

import random
import time

import numpy as np
import pytest

from backends.llm.batching.prefix_cache import PrefixCache, hash_block
from backends.serving.errors import EngineFailed
from tests.unit.llm.waiting import wait_until

CHUNK = 8


def prompt(seed, size):
    return [int(token) for token in np.random.default_rng(seed).integers(10, 200, size)]


def num_prefilled(runner):
    return sum(size for name, size in runner.calls if name == "prefill")


def num_copied(runner):
    return sum(size for name, size in runner.calls if name == "load")


@pytest.fixture
def make_run(manual_engine, collect):
    """Make an engine and a function that runs one prompt on it, and returns how many of its tokens were prefilled and
    how many were copied from the cache.
    """

    def make(**options):
        engine, runner = manual_engine(chunk_size=CHUNK, **options)

        def run(tokens, count=6):
            runner.calls.clear()
            collector = collect(engine, tokens, max_tokens=count)
            engine.iterate_until(collector.ended.is_set)
            assert collector.texts == [engine._tokenizer.decode(runner.expected_answer(tokens, count))]
            return num_prefilled(runner), num_copied(runner)

        return run, engine, runner

    return make


@pytest.mark.parametrize("size", [1, 5, 8, 9, 80, 85])
def test_repeated_prompt_is_not_prefilled_again(make_run, size):
    run, engine, _ = make_run()
    tokens = prompt(1, size)
    assert run(tokens) == (size, 0)
    assert run(tokens) == (0, size)
    assert engine.stats.tokens_in == engine.stats.prefix_tokens_reused == size


def test_growing_chat_is_prefilled_from_the_last_whole_chunk(make_run):
    run, _, runner = make_run()
    chat = prompt(1, 85)
    assert run(chat, 20) == (85, 0)
    for _ in range(4):
        next_turn = chat + runner.expected_answer(chat, 20) + prompt(2, 9)
        num_cached = len(chat) // CHUNK * CHUNK
        assert run(next_turn, 20) == (len(next_turn) - num_cached, num_cached)
        chat = next_turn


def test_prompt_that_ends_inside_a_cached_one_prefills_its_last_chunk(make_run):
    """The logits after its last token are not in the cache."""
    run, _, _ = make_run()
    tokens = prompt(1, 85)
    run(tokens)
    assert run(tokens[:40]) == (8, 32)
    assert run(tokens[:40]) == (0, 40)
    assert run(tokens) == (0, 85)
    assert run(tokens[:43]) == (3, 40)


def test_shared_prefix_is_cached_once(make_run):
    run, engine, _ = make_run()
    system = prompt(0, 80)
    run(system + prompt(1, 8))
    bytes_before = engine.stats.prefix_cache_bytes
    for seed in range(2, 6):
        assert run(system + prompt(seed, 8)) == (8, 80)
    logits_bytes = 259 * 4
    assert engine.stats.prefix_cache_bytes - bytes_before == 4 * (8 * 2 + logits_bytes)


def test_same_chunk_after_another_prefix_is_not_reused(make_run):
    run, _, _ = make_run()
    run(prompt(1, 8) + prompt(2, 8))
    assert run(prompt(3, 8) + prompt(2, 8)) == (16, 0)


def test_prefix_cache_of_0_bytes_caches_nothing(make_run):
    run, engine, _ = make_run(prefix_cache=0)
    run(prompt(1, 40))
    assert run(prompt(1, 40)) == (40, 0) and engine.stats.prefix_cache_bytes == 0


def test_least_recently_used_prefix_is_evicted_first(make_run):
    prompt_bytes = 40 * 2 + 259 * 4
    run, engine, _ = make_run(prefix_cache=3 * prompt_bytes)
    for seed in (1, 2, 3):
        run(prompt(seed, 40))
    assert engine.stats.prefix_cache_bytes == 3 * prompt_bytes
    assert run(prompt(1, 40)) == (0, 40)
    run(prompt(4, 40))
    assert engine.stats.prefix_cache_bytes <= 3 * prompt_bytes
    assert run(prompt(1, 40)) == (0, 40) and run(prompt(3, 40)) == (0, 40) and run(prompt(4, 40)) == (0, 40)
    assert run(prompt(2, 40))[0] > 0


def test_last_block_of_a_prefix_is_evicted_before_its_parents(make_run):
    run, engine, _ = make_run()
    run(prompt(1, 85))
    cache = engine._scheduler.prefill_scheduler.prefix_cache
    while cache.nbytes:
        assert cache.evict_to(cache.nbytes - 1)
        prefilled, copied = run(prompt(1, 85))
        assert prefilled + copied == 85
        cache.evict_to(cache.nbytes - 1)
        for _ in range(len(cache)):
            cache.evict_to(cache.nbytes - 1)
    assert len(cache) == 0


def test_prompt_larger_than_the_cache_keeps_its_first_blocks(make_run):
    run, engine, _ = make_run(prefix_cache=5 * 16)
    assert run(prompt(1, 80)) == (80, 0)
    assert run(prompt(1, 80)) == (40, 40)
    assert engine.stats.prefix_cache_bytes == 5 * 16


def test_concurrent_prompts_prefill_their_shared_prefix_once(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=CHUNK)
    system = prompt(0, 80)
    collectors = [collect(engine, system + prompt(seed, 8), max_tokens=3) for seed in (1, 2, 3)]
    engine.iterate_until(lambda: all(collector.ended.is_set() for collector in collectors))
    assert num_prefilled(runner) == 80 + 3 * 8


def test_prefix_evicted_while_it_is_copied_is_prefilled(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=CHUNK)
    tokens = prompt(1, 900)
    collector = collect(engine, tokens, max_tokens=2)
    engine.iterate_until(collector.ended.is_set)
    runner.calls.clear()
    again = collect(engine, tokens, max_tokens=2)
    engine.iterate()
    assert 100 < num_copied(runner) < 400  # a long copy takes several iterations
    copied = num_copied(runner)
    engine._scheduler.prefill_scheduler.prefix_cache.clear()
    engine.iterate_until(again.ended.is_set)
    assert num_copied(runner) == copied and num_prefilled(runner) == 900 - copied
    assert again.texts == collector.texts


def test_copying_delays_running_answers_by_at_most_a_chunk(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=CHUNK)
    tokens = prompt(1, 900)
    engine.iterate_until(collect(engine, tokens, max_tokens=1).ended.is_set)
    running = collect(engine, [9], max_tokens=200)
    engine.iterate_until(running.has_first_token.is_set)
    runner.calls.clear()
    engine.iterate_until(collect(engine, tokens, max_tokens=1).ended.is_set)
    num_consecutive = 0
    for name, size in runner.calls:
        num_consecutive = num_consecutive + size if name == "load" else 0
        assert num_consecutive <= 32 * CHUNK + CHUNK


def test_cancelling_while_a_prefix_is_copied(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=CHUNK)
    tokens = prompt(1, 900)
    engine.iterate_until(collect(engine, tokens, max_tokens=1).ended.is_set)
    again = collect(engine, tokens)
    engine.iterate()
    assert engine.stats.rows_active == 1
    engine.cancel(again.generation)
    engine.iterate()
    assert (
        again.error and engine.stats.rows_active == engine.stats.row_bytes == 0 and (runner.stored_tokens == -1).all()
    )


def test_failure_to_cache_a_prefix_does_no_harm(make_run, monkeypatch):
    run, engine, runner = make_run()
    monkeypatch.setattr(runner, "save", lambda *args: 1 / 0)
    assert run(prompt(1, 40)) == (40, 0) == (40, engine.stats.prefix_cache_bytes)


def test_failure_to_copy_a_prefix_fails_one_request(manual_engine, collect, monkeypatch):
    engine, runner = manual_engine(chunk_size=CHUNK)
    other = collect(engine, prompt(2, 5), max_tokens=50)
    engine.iterate_until(collect(engine, prompt(1, 40), max_tokens=1).ended.is_set)
    monkeypatch.setattr(runner, "load", lambda *args: 1 / 0)
    again = collect(engine, prompt(1, 40), max_tokens=1)
    engine.iterate_until(lambda: again.ended.is_set() and other.ended.is_set())
    assert isinstance(again.error, EngineFailed) and other.error is None


def test_engine_fault_clears_the_prefix_cache(scripted_engine, collect, monkeypatch):
    engine, _ = scripted_engine()
    collect(engine, prompt(1, 40), max_tokens=1).wait()
    decode_step = engine._scheduler.decode_step
    monkeypatch.setattr(engine._scheduler, "decode_step", lambda: 1 / 0)
    assert isinstance(collect(engine, prompt(2, 40)).wait().error, EngineFailed)
    monkeypatch.setattr(engine._scheduler, "decode_step", decode_step)
    collect(engine, prompt(1, 40), max_tokens=1).wait()
    assert engine.stats.prefix_tokens_reused == 0


def test_closing_frees_the_prefix_cache(scripted_engine, collect):
    engine, _ = scripted_engine()
    collect(engine, prompt(1, 40), max_tokens=1).wait()
    assert engine.stats.prefix_cache_bytes > 0
    engine.close()
    assert engine.stats.prefix_cache_bytes == 0


def test_random_prompts_with_shared_prefixes_get_the_same_tokens_as_alone(scripted_engine, collect, tokenizer):
    engine, runner = scripted_engine(max_rows=5, chunk_size=CHUNK, seconds=0.0005, prefix_cache=3000)
    rng = random.Random(3)
    trunk = prompt(0, 120)
    collectors = []
    for number in range(120):
        tokens = trunk[: rng.randrange(0, 120)] + prompt(number % 7, rng.randrange(1, 30))
        count = rng.randrange(1, 12)
        collectors.append((collect(engine, tokens, max_tokens=count), tokens, count))
        if rng.random() < 0.2:
            engine.cancel(rng.choice(collectors)[0].generation)
        time.sleep(rng.random() * 0.002)
    for collector, tokens, count in collectors:
        collector.wait()
        assert collector.error or collector.texts[0] == tokenizer.decode(runner.expected_answer(tokens, count))
        assert engine.stats.prefix_cache_bytes <= 3000
    wait_until(lambda: engine.stats.rows_active == engine.stats.row_bytes == 0)
    assert engine.stats.prefix_tokens_reused > 1000 and engine.stats.rows_waiting == 0
    assert (runner.stored_tokens == -1).all()


def test_random_puts_and_evictions_keep_the_counts():
    rng = random.Random(5)
    cache, known = PrefixCache(), {b"": b""}
    for _ in range(3000):
        parent_hash = rng.choice(list(known))
        tokens = np.array([rng.randrange(3)], np.int64)
        block_hash = hash_block(parent_hash, tokens)
        if rng.random() < 0.6 and (parent_hash == b"" or cache.get(parent_hash)):
            cache.put(
                block_hash,
                parent_hash,
                np.zeros(rng.randrange(1, 50)),
                np.zeros(3, np.float32) if rng.random() < 0.3 else None,
            )
            known[block_hash] = parent_hash
        elif rng.random() < 0.5:
            cache.get(block_hash)
        else:
            limit = rng.randrange(0, 4000)
            assert cache.evict_to(limit) and cache.nbytes <= limit
        blocks = cache._blocks
        assert cache.nbytes == sum(block.nbytes for block in blocks.values())
        for block in blocks.values():
            assert block.num_children == sum(other.parent is block for other in blocks.values())
            assert block.parent is None or block.parent.block_hash in blocks  # never a block without its parent
        assert len(cache._leaves) <= 2 * len(blocks) + 65 or not blocks
    assert cache.evict_to(0) and len(cache) == 0 == cache.nbytes
