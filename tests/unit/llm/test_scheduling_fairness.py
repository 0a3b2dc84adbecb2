"""Fairness of scheduling, with bounds in iterations and tokens, never in seconds."""

import itertools

import pytest

from backends.serving.errors import Cancelled


def short_prompt(first):
    return [first, 20, 30]


def long_prompt(first, size):
    return [first] + [7] * (size - 1)


def test_short_prompt_does_not_wait_behind_a_long_prefill(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=8)
    long_request = collect(engine, long_prompt(10, 800), max_tokens=1)
    for _ in range(5):
        engine.iterate()
    short_request = collect(engine, short_prompt(11), max_tokens=5)
    assert engine.iterate_until(short_request.has_first_token.is_set) == 1
    assert runner.prefilled_by == [10] * 5 + [11]
    engine.iterate_until(long_request.ended.is_set)
    assert long_request.texts == [engine._tokenizer.decode(runner.expected_answer(long_prompt(10, 800), 1))]


def test_short_prompt_overtakes_a_long_one_that_waits_for_a_slot(manual_engine, collect):
    engine, runner = manual_engine(max_rows=1)
    collect(engine, short_prompt(10), max_tokens=30)
    engine.iterate()
    long_request, short_request = (
        collect(engine, long_prompt(11, 80), max_tokens=1),
        collect(engine, short_prompt(12), max_tokens=1),
    )
    engine.iterate_until(lambda: long_request.ended.is_set() and short_request.ended.is_set())
    assert runner.prefilled_by == [10, 12] + [11] * 10


@pytest.mark.parametrize("interval", [1, 3])
def test_no_prompt_starves(manual_engine, collect, interval):
    """A prompt is overtaken only by those that arrive before as many tokens are prefilled as it has itself."""
    engine, runner = manual_engine(chunk_size=8, prefix_cache=0)
    long_request = collect(engine, long_prompt(11, 80), max_tokens=1)
    arrived_at = {}
    for iteration in itertools.count():
        if long_request.ended.is_set():
            break
        # New prompts arrive all the time: as many tokens as can be prefilled, or three times as many.
        if iteration % interval == 0:
            first = 20 + iteration
            arrived_at[first] = engine.stats.tokens_in
            collect(engine, long_prompt(first, 24), max_tokens=1)
        engine.iterate()
        assert iteration < 100
    overtaking = set(runner.prefilled_by) - {11}
    assert len(overtaking) > 1 and all(arrived_at[first] < 80 for first in overtaking)
    assert interval == 1 or len(runner.prefilled_by) * 8 <= 80 + 80 + 24


@pytest.mark.parametrize("running", [0, 15])
def test_iteration_prefills_at_most_one_chunk_and_always_some(manual_engine, collect, running):
    engine, runner = manual_engine(chunk_size=16, max_rows=16)
    for first in range(10, 10 + running):
        collect(engine, short_prompt(first), max_tokens=900)
    engine.iterate_until(lambda: engine.stats.rows_active == running)
    long_request = collect(engine, long_prompt(40, 320), max_tokens=1)
    runner.calls.clear()
    iterations = engine.iterate_until(long_request.has_first_token.is_set)
    assert iterations == 20 and runner.calls.count(("prefill", 16)) == 20
    for (name, _), (following, _) in itertools.pairwise(runner.calls):
        assert not running or (name, following) != ("prefill", "prefill")


def test_short_prompts_share_an_iteration(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=30, max_rows=16)
    collectors = [collect(engine, short_prompt(first), max_tokens=9) for first in range(10, 20)]
    assert engine.iterate_until(lambda: all(collector.has_first_token.is_set() for collector in collectors)) == 1
    assert runner.prefilled_by == list(range(10, 20))


def test_request_with_many_answers_lets_others_pass(manual_engine, collect):
    engine, _ = manual_engine(max_rows=4)
    large = collect(engine, short_prompt(10), n=40, max_tokens=10)
    engine.iterate_until(lambda: engine.stats.rows_active == 4)
    others = [collect(engine, short_prompt(first), max_tokens=10) for first in range(11, 14)]
    iterations = engine.iterate_until(lambda: all(other.ended.is_set() for other in others))
    assert iterations <= 25  # ten until slots are free, ten to generate, and a margin
    assert sum(reason is not None for reason in large.finish_reasons) <= 8
    engine.iterate_until(large.ended.is_set)
    assert len(set(large.texts)) == 1


def test_two_requests_with_many_answers_share_the_slots(manual_engine, collect):
    engine, _ = manual_engine(max_rows=6)
    first, second = (collect(engine, short_prompt(token), n=30, max_tokens=7) for token in (10, 11))
    differences = []
    while not (first.ended.is_set() or second.ended.is_set()):
        engine.iterate()
        differences.append(abs(first.num_tokens - second.num_tokens))
    assert max(differences) <= 30 and max(differences[6:]) - max(differences[:6]) <= 5  # `first` begins with five slots
    engine.iterate_until(lambda: first.ended.is_set() and second.ended.is_set())


def test_request_with_many_answers_is_not_starved_by_new_ones(manual_engine, collect):
    engine, _ = manual_engine(max_rows=2, max_waiting=1000)
    large = collect(engine, short_prompt(10), n=5, max_tokens=4)
    firsts = itertools.cycle(range(20, 200))
    iterations = 0
    while not large.ended.is_set():
        collect(engine, short_prompt(next(firsts)), max_tokens=4)
        engine.iterate()
        iterations += 1
        assert iterations < 100


def test_answers_of_one_request_wait_for_its_prefill_and_copy_it(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=8, max_rows=8, prefix_cache=0)
    large = collect(engine, long_prompt(10, 80), n=4, max_tokens=3)
    engine.iterate_until(large.ended.is_set)
    assert runner.prefilled_by == [10] * 10 and sum(size for name, size in runner.calls if name == "copy") == 240


def test_cancelling_during_several_prefills(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=8, max_rows=4)
    collectors = [collect(engine, long_prompt(first, 40 * (30 - first)), max_tokens=2) for first in (10, 20)]
    engine.iterate()
    collectors.append(collect(engine, long_prompt(28, 80), max_tokens=2))
    engine.iterate()
    assert engine.stats.rows_active == 2
    engine.cancel(collectors[0].generation)
    engine.cancel(collectors[2].generation)
    engine.iterate()
    assert isinstance(collectors[0].error, Cancelled) and isinstance(collectors[2].error, Cancelled)
    engine.iterate_until(collectors[1].ended.is_set)
    assert collectors[1].texts == [engine._tokenizer.decode(runner.expected_answer(long_prompt(20, 400), 2))]
    assert (runner.stored_tokens == -1).all() and engine.stats.rows_waiting == 0
