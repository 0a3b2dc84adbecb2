"""Faults of the model runner, the scheduler and sinks, and the requests that they fail."""

import itertools

import numpy as np
import pytest

from backends.llm.engine import Generation
from backends.llm.sampling_params import SamplingParams
from backends.serving.errors import EngineFailed
from tests.unit.llm.waiting import cancel_and_wait, wait_until

PROMPT = [10, 20, 30]
POISON = 99


def test_sequence_that_makes_the_step_raise_fails_alone(scripted_engine, collect, tokenizer):
    engine, runner = scripted_engine(max_rows=4, seconds=0.002)
    others = [collect(engine, [first_token, 20, 30], max_tokens=40) for first_token in (11, 12, 13)]
    for other in others:
        other.has_first_token.wait()
    runner.raises_for = lambda rows: any(POISON in tokens and len(tokens) > 5 for tokens in rows)
    bad = collect(engine, [POISON, 20, 30], max_tokens=40).wait()
    assert isinstance(bad.error, EngineFailed) and "the device has gone" in str(bad.error)
    for first_token, other in zip((11, 12, 13), others, strict=True):
        assert other.wait().texts[0] == tokenizer.decode(runner.expected_answer([first_token, 20, 30], 40))


def test_prompt_that_makes_the_model_raise_fails_alone(scripted_engine, collect):
    engine, runner = scripted_engine()
    other = collect(engine, PROMPT, max_tokens=300)
    runner.raises_for = lambda rows: any(POISON in tokens for tokens in rows)
    assert isinstance(collect(engine, [POISON]).wait().error, EngineFailed)
    assert other.wait().error is None


def test_all_fail_when_every_step_raises_and_new_requests_are_served(scripted_engine, collect):
    engine, runner = scripted_engine(max_rows=3, seconds=0.002)
    collectors = [collect(engine, PROMPT) for _ in range(5)]
    collectors[0].has_first_token.wait()
    runner.raises_for = lambda rows: True
    for collector in collectors:
        assert isinstance(collector.wait().error, EngineFailed)
    runner.raises_for = lambda rows: False
    assert collect(engine, PROMPT, max_tokens=3).wait().error is None
    wait_until(lambda: engine.stats.rows_active == 0)


def test_logits_that_are_not_numbers_fail_their_own_request(scripted_engine, collect):
    engine, runner = scripted_engine()
    runner.gives_nan_for = lambda tokens: tokens[0] == POISON and len(tokens) > 6
    good, bad = collect(engine, PROMPT, max_tokens=50), collect(engine, [POISON, 1, 2], max_tokens=50)
    assert isinstance(bad.wait().error, EngineFailed) and "not numbers" in str(bad.error)
    assert good.wait().error is None


def test_engine_survives_a_fault_of_its_own(scripted_engine, collect, monkeypatch):
    engine, runner = scripted_engine(seconds=0.002)
    running = collect(engine, PROMPT)
    running.has_first_token.wait()
    decode_step = engine._scheduler.decode_step
    monkeypatch.setattr(engine._scheduler, "decode_step", lambda: 1 / 0)
    assert isinstance(running.wait().error, EngineFailed)
    monkeypatch.setattr(engine._scheduler, "decode_step", decode_step)
    assert collect(engine, PROMPT, max_tokens=3).wait().error is None
    wait_until(lambda: (runner.stored_tokens == -1).all())


def raise_first(count, function):
    """Return `function` with its first `count` calls raising."""
    calls = itertools.count()

    def flaky(*args):
        if next(calls) < count:
            raise OSError("no memory")
        return function(*args)

    return flaky


@pytest.mark.parametrize("count", [1, 2, 10**9])
@pytest.mark.parametrize("name", ["release", "swap"])
@pytest.mark.parametrize("max_tokens", [1, 4])
def test_slots_that_cannot_be_released_leave_no_request_open(
    scripted_engine, collect, monkeypatch, name, count, max_tokens
):
    engine, runner = scripted_engine(max_rows=3, seconds=0.001)
    monkeypatch.setattr(runner, name, raise_first(count, getattr(runner, name)))
    for _ in range(3):
        collectors = [collect(engine, PROMPT, max_tokens=tokens) for tokens in (max_tokens, 40, 50)]
        for collector in collectors:
            collector.wait()
        assert all(collector.error is None or isinstance(collector.error, EngineFailed) for collector in collectors)
        wait_until(lambda: not engine._groups and not len(engine._scheduler.slots))
    assert engine._thread.is_alive()


@pytest.mark.parametrize("count", [1, 10**9])
def test_cancelling_ends_a_request_whose_slot_cannot_be_released(scripted_engine, collect, monkeypatch, count):
    engine, runner = scripted_engine(max_rows=2, seconds=0.002)
    cancelled, other = collect(engine, PROMPT), collect(engine, PROMPT)
    cancelled.has_first_token.wait()
    monkeypatch.setattr(runner, "release", raise_first(count, runner.release))
    cancel_and_wait(engine, cancelled)
    assert isinstance(other.wait().error, EngineFailed)
    assert collect(engine, PROMPT, max_tokens=3).wait().num_tokens == 3
    wait_until(lambda: not engine._groups)


def test_failure_while_handling_a_failure_closes_the_engine(scripted_engine, collect, monkeypatch):
    engine, runner = scripted_engine(max_rows=1, seconds=0.002)
    collectors = [collect(engine, PROMPT) for _ in range(3)]
    collectors[0].has_first_token.wait()
    monkeypatch.setattr(engine._scheduler, "reset", lambda: 1 / 0)
    monkeypatch.setattr(engine._scheduler, "decode_step", lambda: 1 / 0)
    for collector in collectors:
        assert isinstance(collector.wait().error, EngineFailed)
    with pytest.raises(EngineFailed):
        collect(engine, PROMPT)
    engine.close()
    assert runner.closed and not engine._groups


def test_sink_that_raises_ends_its_own_generation(scripted_engine, collect):
    engine, _ = scripted_engine(max_rows=2)

    def raising_sink(event):
        raise ValueError("the client cannot be reached")

    engine.submit(Generation(np.array(PROMPT), SamplingParams(temperature=0), raising_sink))
    assert collect(engine, PROMPT, max_tokens=50).wait().error is None
    assert collect(engine, PROMPT, n=2, max_tokens=5).wait().error is None  # both slots are free
    wait_until(lambda: engine.stats.rows_active == 0 and not engine._groups)


def test_closing_fails_open_requests(scripted_engine, collect):
    engine, _ = scripted_engine(max_rows=1, seconds=0.005)
    collectors = [collect(engine, PROMPT) for _ in range(3)]
    engine.close()
    engine.close()
    assert all(isinstance(collector.wait().error, EngineFailed) for collector in collectors)
    with pytest.raises(EngineFailed):
        collect(engine, PROMPT)
