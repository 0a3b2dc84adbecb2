"""Continuous batching: answers, limits, cancellation, stop conditions and recompute."""

import itertools
import random

import numpy as np
import pytest

from backends.llm.batching.sequence import Sequence, SequenceGroup, decode_inputs
from backends.llm.engine import Delta, Generation
from backends.llm.sampling_params import SamplingParams
from backends.serving.errors import Cancelled, ContextLengthExceeded, InvalidValue, Overloaded
from tests.unit.llm.conftest import ScriptedModelRunner
from tests.unit.llm.waiting import cancel_and_wait

PROMPT = [10, 20, 30]


def test_random_batches_give_each_sequence_the_tokens_it_gets_alone(manual_engine, collect, tokenizer):
    engine, runner = manual_engine(max_rows=5)
    rng = random.Random(7)
    collectors = []
    for _ in range(60):
        prompt = [rng.randrange(3, 259) for _ in range(rng.randrange(1, 40))]
        count = rng.randrange(1, 30)
        collectors.append((collect(engine, prompt, max_tokens=count), prompt, count))
        for _ in range(rng.randrange(4)):
            engine.iterate()
    engine.iterate_until(lambda: all(collector.ended.is_set() for collector, _, _ in collectors))
    for collector, prompt, count in collectors:
        assert collector.texts[0] == tokenizer.decode(runner.expected_answer(prompt, count))
        assert (collector.finish_reasons, collector.num_tokens) == (["length"], count)
    widths = {width for name, width in runner.calls if name == "decode"}
    assert max(widths) == 5 and len(widths) > 2  # batches of several sizes ran
    assert any(name == "swap" for name, _ in runner.calls)


def test_running_answer_advances_between_prefill_chunks(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=8)
    engine.iterate_until(collect(engine, PROMPT, max_tokens=900).has_first_token.is_set)
    engine.iterate_until(collect(engine, [5] * 80, max_tokens=1).ended.is_set)
    chunks = [position for position, call in enumerate(runner.calls) if call == ("prefill", 8)]
    assert len(chunks) == 10
    for chunk, next_chunk in itertools.pairwise(chunks):
        assert ("decode", 1) in runner.calls[chunk:next_chunk]


def test_several_short_prompts_are_prefilled_in_one_iteration(manual_engine, collect):
    engine, runner = manual_engine(chunk_size=32)
    engine.iterate_until(collect(engine, PROMPT, max_tokens=900).has_first_token.is_set)
    collectors = [collect(engine, [token, 20, 30], max_tokens=3) for token in range(3, 6)]
    engine.iterate_until(lambda: all(collector.ended.is_set() for collector in collectors))
    calls = [name for name, _ in runner.calls]
    first = calls.index("prefill", 1)
    assert calls[first : first + 3] == ["prefill"] * 3


def test_first_come_first_served(scripted_engine, collect):
    engine, _ = scripted_engine(max_rows=1, seconds=0.001)
    collectors = [collect(engine, PROMPT, max_tokens=3) for _ in range(6)]
    ended_at = [collector.wait().ended_at for collector in collectors]
    assert ended_at == sorted(ended_at) and len(set(ended_at)) == 6


def test_n_answers_compute_the_prompt_once(scripted_engine, collect, tokenizer):
    engine, runner = scripted_engine(max_rows=4, chunk_size=100)
    collector = collect(engine, [9] * 50, n=4, max_tokens=5).wait()
    assert collector.texts == [tokenizer.decode(runner.expected_answer([9] * 50, 5))] * 4
    assert [call for call in runner.calls if call[0] == "prefill"] == [("prefill", 50)]
    assert engine.stats.tokens_in == 50 and engine.stats.tokens_out == 20


def test_n_answers_with_fewer_slots(scripted_engine, collect, tokenizer):
    engine, runner = scripted_engine(max_rows=2)
    collector = collect(engine, PROMPT, n=5, max_tokens=4).wait()
    assert collector.texts == [tokenizer.decode(runner.expected_answer(PROMPT, 4))] * 5


@pytest.mark.parametrize(("prompt", "max_tokens", "num_tokens"), [(60, None, 4), (60, 100, 4), (63, 5, 1), (10, 5, 5)])
def test_max_tokens_is_clamped_to_the_context(scripted_engine, collect, prompt, max_tokens, num_tokens):
    engine, _ = scripted_engine(context_length=64)
    collector = collect(engine, [5] * prompt, max_tokens=max_tokens).wait()
    assert (collector.num_tokens, collector.finish_reasons) == (num_tokens, ["length"])


def test_prompt_that_fills_the_context_is_refused_with_both_numbers(scripted_engine, collect):
    engine, _ = scripted_engine(context_length=64)
    with pytest.raises(ContextLengthExceeded, match=r"64 tokens.*64"):
        collect(engine, [5] * 64)


def test_full_queue_refuses_until_sequences_end(manual_engine, collect):
    engine, _ = manual_engine(max_rows=2, max_waiting=3)
    collectors = [collect(engine, PROMPT, max_tokens=20) for _ in range(5)]
    with pytest.raises(Overloaded):
        collect(engine, PROMPT)
    engine.iterate_until(lambda: all(collector.ended.is_set() for collector in collectors))
    assert all(collector.error is None for collector in collectors)
    admitted = collect(engine, PROMPT, max_tokens=1)
    engine.iterate_until(admitted.ended.is_set)
    assert admitted.error is None


def test_more_answers_than_can_ever_fit_are_invalid_not_overloaded(scripted_engine, collect):
    engine, _ = scripted_engine(max_rows=2, max_waiting=1)
    with pytest.raises(InvalidValue, match=r"\[invalid_value:n\].* 3 answers"):
        collect(engine, PROMPT, n=4)
    assert collect(engine, PROMPT, n=3, max_tokens=2).wait().error is None


def test_waiting_sequences_hold_no_arrays_over_the_vocabulary(manual_engine, collect):
    engine, _ = manual_engine(max_rows=1)
    running = collect(engine, PROMPT, max_tokens=900, frequency_penalty=1.0)
    engine.iterate_until(running.has_first_token.is_set)
    collect(engine, PROMPT, n=5, frequency_penalty=1.0)
    waiting = [entry.sequence for entries in engine._waiting._groups.values() for entry in entries]
    assert len(waiting) == 5 and all(sequence._sampler is None for sequence in waiting)


def test_max_waiting_0_still_fills_the_slots(manual_engine, collect):
    engine, _ = manual_engine(max_rows=2, max_waiting=0)
    collectors = [collect(engine, PROMPT, max_tokens=5) for _ in range(2)]
    with pytest.raises(Overloaded):
        collect(engine, PROMPT)
    engine.iterate_until(lambda: all(collector.ended.is_set() for collector in collectors))
    assert all(collector.error is None for collector in collectors)


def test_cancelling_a_running_request_frees_its_slot_within_an_iteration(manual_engine, collect):
    engine, _ = manual_engine(max_rows=1)
    first = collect(engine, PROMPT)
    engine.iterate_until(first.has_first_token.is_set)
    second = collect(engine, PROMPT, max_tokens=2)
    engine.cancel(first.generation)
    engine.iterate()
    assert isinstance(first.error, Cancelled) and second.has_first_token.is_set()
    engine.iterate_until(second.ended.is_set)
    assert second.error is None


def test_cancelling_a_waiting_request_leaves_others_running(manual_engine, collect):
    engine, _ = manual_engine(max_rows=1)
    first = collect(engine, PROMPT, max_tokens=30)
    second = collect(engine, PROMPT)
    engine.iterate_until(first.has_first_token.is_set)
    engine.cancel(second.generation)
    engine.iterate()
    assert isinstance(second.error, Cancelled) and not first.ended.is_set()
    engine.iterate_until(first.ended.is_set)
    assert first.error is None and engine.stats.rows_waiting == 0


def test_cancelling_during_a_long_prefill_ends_it_within_an_iteration(manual_engine, collect):
    engine, runner = manual_engine(max_rows=2, chunk_size=8)
    other = collect(engine, PROMPT, max_tokens=20)
    long = collect(engine, [5] * 900)
    engine.iterate_until(lambda: runner.calls.count(("prefill", 8)) == 3)
    engine.cancel(long.generation)
    engine.iterate()
    assert isinstance(long.error, Cancelled) and not long.has_first_token.is_set()
    engine.iterate_until(other.ended.is_set)
    assert other.error is None and other.num_tokens == 20
    engine.cancel(long.generation)  # a second time has no effect


def test_cancelling_frees_all_answers_of_a_request(scripted_engine, collect):
    engine, _ = scripted_engine(max_rows=2, seconds=0.002)
    many = collect(engine, PROMPT, n=6)
    many.has_first_token.wait()
    cancel_and_wait(engine, many)
    assert collect(engine, PROMPT, max_tokens=2).wait().error is None
    assert engine.stats.rows_waiting == 0


def test_eos_token_stops_unless_ignored(scripted_engine, collect, monkeypatch):
    engine, runner = scripted_engine()
    monkeypatch.setattr(type(runner), "next_token", staticmethod(lambda tokens: 2 if len(tokens) == 6 else 40))
    answer = collect(engine, PROMPT).wait()
    assert (answer.finish_reasons, answer.num_tokens, len(answer.texts[0])) == (["stop"], 4, 3)
    answer = collect(engine, PROMPT, ignore_eos=True, max_tokens=6).wait()
    # The special token is hidden.
    assert (answer.finish_reasons, answer.num_tokens, len(answer.texts[0])) == (["length"], 6, 5)
    answer = collect(engine, PROMPT, ignore_eos=True, max_tokens=6, stop_token_ids=(2,)).wait()
    assert (answer.finish_reasons, answer.num_tokens) == (["stop"], 4)


def test_stop_string_across_tokens_is_never_sent(scripted_engine, collect, tokenizer):
    engine, runner = scripted_engine()
    whole = tokenizer.decode(runner.expected_answer(PROMPT, 40))
    stop = whole[10:14]
    collector = collect(engine, PROMPT, max_tokens=40, stop=(stop, "a text that never comes")).wait()
    position = whole.index(stop)
    assert collector.texts[0] == whole[:position] and collector.finish_reasons == ["stop"]
    assert collector.num_tokens == position + len(stop)


def test_held_back_text_is_sent_if_no_stop_string_follows(scripted_engine, collect, tokenizer):
    engine, runner = scripted_engine()
    whole = tokenizer.decode(runner.expected_answer(PROMPT, 12))
    collector = collect(engine, PROMPT, max_tokens=12, stop=(whole[9:12] + "x",)).wait()
    assert collector.texts[0] == whole and collector.finish_reasons == ["length"]
    assert np.isclose(sum(event.num_tokens for event in collector.events), 12)


def test_preempted_sequence_resumes_with_same_tokens(tokenizer):
    runner = ScriptedModelRunner()
    generation = Generation(
        np.array(PROMPT), SamplingParams(seed=5, frequency_penalty=0.5, max_tokens=12), lambda event: None
    )

    def run(preempt_after):
        group = SequenceGroup(generation, num_unfinished=1)
        sequence = Sequence(
            group, 0, tokenizer=tokenizer, eos=frozenset({1}), max_new_tokens=50, vocab_size=runner.vocab_size
        )
        deltas: list[Delta] = []
        while len(deltas) < 12:
            if sequence.last_token < 0:
                logits = runner.prefill(0, sequence.prefill_tokens, 0)
                sequence.length = len(sequence.prefill_tokens)
            else:
                tokens, lengths = decode_inputs([sequence])
                logits = runner.decode(tokens, lengths)[0]
                sequence.length += 1
            if (delta := sequence.sample_next(logits * 2)) is None:
                continue
            deltas.append(delta)
            if len(deltas) in preempt_after:
                preempt_after = preempt_after - {len(deltas)}
                sequence.prepare_recompute()
        return deltas

    assert run({1, 5, 11}) == run(set())


def test_min_tokens_delays_stop_tokens_and_stop_strings(scripted_engine, collect, tokenizer, monkeypatch):
    engine, runner = scripted_engine()
    monkeypatch.setattr(type(runner), "next_token", staticmethod(lambda tokens: 2 if len(tokens) >= 6 else 40))
    assert collect(engine, PROMPT).wait().num_tokens == 4
    assert collect(engine, PROMPT, min_tokens=9).wait().num_tokens == 10
    assert collect(engine, PROMPT, min_tokens=9, ignore_eos=True, stop_token_ids=(2,)).wait().num_tokens == 10
    character = tokenizer.decode([40])
    monkeypatch.setattr(type(runner), "next_token", staticmethod(lambda tokens: 40))
    collector = collect(engine, PROMPT, min_tokens=3, max_tokens=9, stop=(character * 2,)).wait()
    assert (collector.texts[0], collector.num_tokens, collector.finish_reasons) == (character * 3, 5, ["stop"])
