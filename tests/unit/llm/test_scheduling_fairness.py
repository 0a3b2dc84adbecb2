"""Whose turn it is: bounds in turns and in tokens, never in seconds."""

import itertools

import pytest

from backends.serving.errors import Cancelled


def short(first):
    return [first, 20, 30]


def long(first, size):
    return [first] + [7] * (size - 1)


def test_a_short_prompt_does_not_wait_behind_a_long_one(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=8)
    slow = collect(engine, long(10, 800), max_tokens=1)
    for _ in range(5):
        engine.iterate()
    quick = collect(engine, short(11), max_tokens=5)
    assert engine.iterate_until(quick.has_first_token.is_set) == 1
    assert runner.prefilled_by == [10] * 5 + [11]
    engine.iterate_until(slow.ended.is_set)
    assert slow.texts == [engine._tokenizer.decode(runner.expected_answer(long(10, 800), 1))]


def test_a_short_prompt_overtakes_a_long_one_that_waits_for_a_row(manual_engine, collect):
    engine, runner = manual_engine(max_rows=1)
    collect(engine, short(10), max_tokens=30)
    engine.iterate()
    slow, quick = collect(engine, long(11, 80), max_tokens=1), collect(engine, short(12), max_tokens=1)
    engine.iterate_until(lambda: slow.ended.is_set() and quick.ended.is_set())
    assert runner.prefilled_by == [10, 12] + [11] * 10


@pytest.mark.parametrize("every", [1, 3])
def test_no_prompt_starves(manual_engine, collect, every):
    """It is overtaken only by those that come before as many tokens are read as it has itself."""
    engine, runner = manual_engine(chunk_size=8, prefix_cache=0)
    slow = collect(engine, long(11, 80), max_tokens=1)
    came = {}
    for turn in itertools.count():
        if slow.ended.is_set():
            break
        if turn % every == 0:  # new ones without end: as many as can be read, or three times as many
            first = 20 + turn
            came[first] = engine.stats.tokens_in
            collect(engine, long(first, 24), max_tokens=1)
        engine.iterate()
        assert turn < 100
    overtook = set(runner.prefilled_by) - {11}
    assert len(overtook) > 1 and all(came[first] < 80 for first in overtook)
    assert every == 1 or len(runner.prefilled_by) * 8 <= 80 + 80 + 24


@pytest.mark.parametrize("running", [0, 15])
def test_a_turn_reads_no_more_than_a_chunk_and_always_something(manual_engine, collect, running):
    engine, runner = manual_engine(chunk_size=16, max_rows=16)
    for first in range(10, 10 + running):
        collect(engine, short(first), max_tokens=900)
    engine.iterate_until(lambda: engine.stats.rows_active == running)
    slow = collect(engine, long(40, 320), max_tokens=1)
    runner.calls.clear()
    turns = engine.iterate_until(slow.has_first_token.is_set)
    assert turns == 20 and runner.calls.count(("prefill", 16)) == 20
    for (name, _), (following, _) in itertools.pairwise(runner.calls):
        assert not running or (name, following) != ("prefill", "prefill")


def test_short_prompts_share_a_turn(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=30, max_rows=16)
    collectors = [collect(engine, short(first), max_tokens=9) for first in range(10, 20)]
    assert engine.iterate_until(lambda: all(one.has_first_token.is_set() for one in collectors)) == 1
    assert runner.prefilled_by == list(range(10, 20))


def test_many_answers_of_one_job_let_others_past(manual_engine, collect):
    engine, _ = manual_engine(max_rows=4)
    many = collect(engine, short(10), n=40, max_tokens=10)
    engine.iterate_until(lambda: engine.stats.rows_active == 4)
    others = [collect(engine, short(first), max_tokens=10) for first in range(11, 14)]
    turns = engine.iterate_until(lambda: all(one.ended.is_set() for one in others))
    assert turns <= 25  # ten until rows are free, ten to speak, and a little
    assert sum(reason is not None for reason in many.finish_reasons) <= 8
    engine.iterate_until(many.ended.is_set)
    assert len(set(many.texts)) == 1


def test_many_answers_share_the_rows_with_many_others(manual_engine, collect):
    engine, _ = manual_engine(max_rows=6)
    one, other = collect(engine, short(10), n=30, max_tokens=7), collect(engine, short(11), n=30, max_tokens=7)
    apart = []
    while not (one.ended.is_set() or other.ended.is_set()):
        engine.iterate()
        apart.append(abs(one.num_tokens - other.num_tokens))
    assert max(apart) <= 30 and max(apart[6:]) - max(apart[:6]) <= 5  # `one` begins with five rows
    engine.iterate_until(lambda: one.ended.is_set() and other.ended.is_set())


def test_a_job_with_many_answers_is_not_starved_by_new_ones(manual_engine, collect):
    engine, _ = manual_engine(max_rows=2, max_waiting=1000)
    many = collect(engine, short(10), n=5, max_tokens=4)
    firsts = itertools.cycle(range(20, 200))
    turns = 0
    while not many.ended.is_set():
        collect(engine, short(next(firsts)), max_tokens=4)
        engine.iterate()
        turns += 1
        assert turns < 100


def test_answers_of_one_job_wait_for_its_prompt_and_copy_it(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=8, max_rows=8, prefix_cache=0)
    many = collect(engine, long(10, 80), n=4, max_tokens=3)
    engine.iterate_until(many.ended.is_set)
    assert runner.prefilled_by == [10] * 10 and sum(size for name, size in runner.calls if name == "copy") == 240


def test_cancelling_while_several_prompts_are_read(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=8, max_rows=4)
    collectors = [collect(engine, long(first, 40 * (30 - first)), max_tokens=2) for first in (10, 20)]
    engine.iterate()
    collectors.append(collect(engine, long(28, 80), max_tokens=2))
    engine.iterate()
    assert engine.stats.rows_active == 2
    engine.cancel(collectors[0].generation)
    engine.cancel(collectors[2].generation)
    engine.iterate()
    assert isinstance(collectors[0].error, Cancelled) and isinstance(collectors[2].error, Cancelled)
    engine.iterate_until(collectors[1].ended.is_set)
    assert collectors[1].texts == [engine._tokenizer.decode(runner.expected_answer(long(20, 400), 2))]
    assert (runner.stored_tokens == -1).all() and engine.stats.rows_waiting == 0
