"""What is kept of prompts: by the scripted forward pass, which knows what was read and what an answer added."""

import random
import time

import numpy as np
import pytest

from backends.llm.batching.prefix_cache import PrefixCache, hash_block
from backends.serving.errors import EngineFailed

CHUNK = 8


def prompt(seed, size):
    return [int(token) for token in np.random.default_rng(seed).integers(10, 200, size)]


def read(runner):
    return sum(size for name, size in runner.calls if name == "prefill")


def loaded(runner):
    return sum(size for name, size in runner.calls if name == "load")


@pytest.fixture
def ask(manual_engine, collect):
    """Ask one at a time; what comes back is the tokens that were read, and those that were copied."""
    made = {}

    def make(**options):
        made["engine"], made["forward"] = manual_engine(chunk_size=CHUNK, **options)

        def one(tokens, count=6):
            engine, runner = made["engine"], made["forward"]
            runner.calls.clear()
            collector = collect(engine, tokens, max_tokens=count)
            engine.iterate_until(collector.ended.is_set)
            assert collector.texts == [engine._tokenizer.decode(runner.expected_answer(tokens, count))]
            return read(runner), loaded(runner)

        return one, made["engine"], made["forward"]

    return make


@pytest.mark.parametrize("size", [1, 5, 8, 9, 80, 85])
def test_a_prompt_that_comes_again_is_not_read_again(ask, size):
    one, engine, _ = ask()
    tokens = prompt(1, size)
    assert one(tokens) == (size, 0)
    assert one(tokens) == (0, size)
    assert engine.stats.tokens_in == engine.stats.prefix_tokens_reused == size


def test_a_growing_chat_is_read_from_the_last_whole_chunk(ask):
    one, _, runner = ask()
    chat = prompt(1, 85)
    assert one(chat, 20) == (85, 0)
    for _ in range(4):
        grown = chat + runner.expected_answer(chat, 20) + prompt(2, 9)
        assert one(grown, 20) == (len(grown) - len(chat) // CHUNK * CHUNK, len(chat) // CHUNK * CHUNK)
        chat = grown


def test_a_prompt_that_ends_where_a_kept_one_goes_on_reads_its_last_chunk(ask):
    """The logits behind its last token were never seen."""
    one, _, _ = ask()
    tokens = prompt(1, 85)
    one(tokens)
    assert one(tokens[:40]) == (8, 32)
    assert one(tokens[:40]) == (0, 40)
    assert one(tokens) == (0, 85)
    assert one(tokens[:43]) == (3, 40)


def test_a_shared_beginning_is_kept_once(ask):
    one, engine, _ = ask()
    system = prompt(0, 80)
    one(system + prompt(1, 8))
    before = engine.stats.prefix_cache_bytes
    for seed in range(2, 6):
        assert one(system + prompt(seed, 8)) == (8, 80)
    logits = 259 * 4
    assert engine.stats.prefix_cache_bytes - before == 4 * (8 * 2 + logits)


def test_the_same_tokens_behind_others_are_something_else(ask):
    one, _, _ = ask()
    one(prompt(1, 8) + prompt(2, 8))
    assert one(prompt(3, 8) + prompt(2, 8)) == (16, 0)


def test_nothing_is_kept_where_nothing_may_be(ask):
    one, engine, _ = ask(prefix_cache=0)
    one(prompt(1, 40))
    assert one(prompt(1, 40)) == (40, 0) and engine.stats.prefix_cache_bytes == 0


def test_what_was_not_used_for_longest_goes_first(ask):
    each = 40 * 2 + 259 * 4
    one, engine, _ = ask(prefix_cache=3 * each)
    for seed in (1, 2, 3):
        one(prompt(seed, 40))
    assert engine.stats.prefix_cache_bytes == 3 * each
    assert one(prompt(1, 40)) == (0, 40)
    one(prompt(4, 40))
    assert engine.stats.prefix_cache_bytes <= 3 * each
    assert one(prompt(1, 40)) == (0, 40) and one(prompt(3, 40)) == (0, 40) and one(prompt(4, 40)) == (0, 40)
    assert one(prompt(2, 40))[0] > 0


def test_the_end_goes_before_the_beginning(ask):
    one, engine, _ = ask()
    one(prompt(1, 85))
    kept = engine._scheduler.prefill_scheduler.prefix_cache
    while kept.nbytes:
        assert kept.evict_to(kept.nbytes - 1)
        read_, copied = one(prompt(1, 85))
        assert read_ + copied == 85
        kept.evict_to(kept.nbytes - 1)
        for _ in range(len(kept)):
            kept.evict_to(kept.nbytes - 1)
    assert len(kept) == 0


def test_a_prompt_too_large_to_be_kept_keeps_its_beginning(ask):
    one, engine, _ = ask(prefix_cache=5 * 16)
    assert one(prompt(1, 80)) == (80, 0)
    assert one(prompt(1, 80)) == (40, 40)
    assert engine.stats.prefix_cache_bytes == 5 * 16


def test_two_that_begin_alike_at_once_read_the_beginning_once(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=CHUNK)
    system = prompt(0, 80)
    collectors = [collect(engine, system + prompt(seed, 8), max_tokens=3) for seed in (1, 2, 3)]
    engine.iterate_until(lambda: all(one.ended.is_set() for one in collectors))
    assert read(runner) == 80 + 3 * 8


def test_what_is_dropped_while_it_is_copied_is_read(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=CHUNK)
    tokens = prompt(1, 900)
    collector = collect(engine, tokens, max_tokens=2)
    engine.iterate_until(collector.ended.is_set)
    runner.calls.clear()
    again = collect(engine, tokens, max_tokens=2)
    engine.iterate()
    assert 100 < loaded(runner) < 400  # a long copy takes several turns
    copied = loaded(runner)
    engine._scheduler.prefill_scheduler.prefix_cache.clear()
    engine.iterate_until(again.ended.is_set)
    assert loaded(runner) == copied and read(runner) == 900 - copied
    assert again.texts == collector.texts


def test_copying_holds_running_answers_for_no_longer_than_a_chunk(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=CHUNK)
    tokens = prompt(1, 900)
    engine.iterate_until(collect(engine, tokens, max_tokens=1).ended.is_set)
    running = collect(engine, [9], max_tokens=200)
    engine.iterate_until(running.has_first_token.is_set)
    runner.calls.clear()
    engine.iterate_until(collect(engine, tokens, max_tokens=1).ended.is_set)
    run = 0
    for name, size in runner.calls:
        run = run + size if name == "load" else 0
        assert run <= 32 * CHUNK + CHUNK


def test_cancelling_while_something_is_copied(manual_engine, collect):
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


def test_what_cannot_be_kept_is_no_harm(ask, monkeypatch):
    one, engine, runner = ask()
    monkeypatch.setattr(runner, "save", lambda *args: 1 / 0)
    assert one(prompt(1, 40)) == (40, 0) == (40, engine.stats.prefix_cache_bytes)


def test_what_cannot_be_copied_fails_alone(manual_engine, collect, monkeypatch):
    engine, runner = manual_engine(chunk_size=CHUNK)
    other = collect(engine, prompt(2, 5), max_tokens=50)
    engine.iterate_until(collect(engine, prompt(1, 40), max_tokens=1).ended.is_set)
    monkeypatch.setattr(runner, "load", lambda *args: 1 / 0)
    again = collect(engine, prompt(1, 40), max_tokens=1)
    engine.iterate_until(lambda: again.ended.is_set() and other.ended.is_set())
    assert isinstance(again.error, EngineFailed) and other.error is None


def test_a_fault_of_the_engine_forgets_what_was_kept(scripted_engine, collect, monkeypatch):
    engine, _ = scripted_engine()
    collect(engine, prompt(1, 40), max_tokens=1).wait()
    running = collect(engine, prompt(2, 40))
    running.has_first_token.wait()
    step = engine._scheduler.decode_step
    monkeypatch.setattr(engine._scheduler, "decode_step", lambda: 1 / 0)
    running.wait()
    monkeypatch.setattr(engine._scheduler, "decode_step", step)
    collect(engine, prompt(1, 40), max_tokens=1).wait()
    assert engine.stats.prefix_tokens_reused == 0


def test_closing_gives_back_what_was_kept(scripted_engine, collect):
    engine, _ = scripted_engine()
    collect(engine, prompt(1, 40), max_tokens=1).wait()
    assert engine.stats.prefix_cache_bytes > 0
    engine.close()
    assert engine.stats.prefix_cache_bytes == 0


def test_random_prompts_that_share_beginnings_say_what_they_say_alone(scripted_engine, collect, tokenizer):
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
    deadline = time.monotonic() + 1
    while engine.stats.rows_active or engine.stats.row_bytes:
        assert time.monotonic() < deadline
    assert engine.stats.prefix_tokens_reused > 1000 and engine.stats.rows_waiting == 0
    assert (runner.stored_tokens == -1).all()


def test_keeping_and_dropping_at_random_keeps_count():
    rng = random.Random(5)
    kept, known = PrefixCache(), {b"": b""}
    for _ in range(3000):
        before = rng.choice(list(known))
        tokens = np.array([rng.randrange(3)], np.int64)
        name = hash_block(before, tokens)
        if rng.random() < 0.6 and (before == b"" or kept.get(before)):
            kept.put(
                name, before, np.zeros(rng.randrange(1, 50)), np.zeros(3, np.float32) if rng.random() < 0.3 else None
            )
            known[name] = before
        elif rng.random() < 0.5:
            kept.get(name)
        else:
            limit = rng.randrange(0, 4000)
            assert kept.evict_to(limit) and kept.nbytes <= limit
        parts = kept._blocks
        assert kept.nbytes == sum(part.nbytes for part in parts.values())
        for part in parts.values():
            assert part.num_children == sum(other.parent is part for other in parts.values())
            assert part.parent is None or part.parent.block_hash in parts  # never a part without what is before it
        assert len(kept._leaves) <= 2 * len(parts) + 65 or not parts
    assert kept.evict_to(0) and len(kept) == 0 == kept.nbytes
