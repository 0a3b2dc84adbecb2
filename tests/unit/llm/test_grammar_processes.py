"""Grammar processes: cost of hostile structures, order of jobs, eviction, late masks, and processes that die."""

import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from tokenizers import Tokenizer

from backends.llm.sampling_params import StructuredOutputsParams
from backends.llm.structured_outputs.grammar_compiler import GrammarCompiler
from backends.llm.structured_outputs.ipc_messages import TOKEN
from backends.llm.structured_outputs.limits import Limits, limits_for
from backends.serving.errors import EngineFailed, GenerationError, InvalidValue, Overloaded

ROOT = Path(__file__).parents[3]
PROMPT = [10, 20, 30]
WORD = {"type": "string", "pattern": "^[a-z]{4,9}$"}


@pytest.fixture
def open_grammars(scripted_engine, tokenizer):  # torn down before the engines, which assert that no thread is left
    compilers = []

    def make(**limits):
        compilers.append(GrammarCompiler(tokenizer, 259, frozenset({1, 2}), Limits(**limits)))
        return compilers[-1]

    yield make
    for compiler in compilers:
        compiler.close()


def regex(text):
    return StructuredOutputsParams("regex", text)


def schema(document):
    return StructuredOutputsParams("json", json.dumps(document))


def slow_schema(number=0):
    """Return a structure whose compilation takes a second or 350 MB, whichever comes first."""
    return schema({"type": "integer", "multipleOf": 999_983 + 2 * number})


def object_schema(num_members):
    return schema({"type": "object", "properties": {f"field_{i}": {"type": "string"} for i in range(num_members)}})


def doubling_chain(count):
    """Return a schema in which each definition doubles the one before it."""
    definitions: dict[str, Any] = {"d0": {"type": "object", "properties": {"x": {"type": "string"}}}}
    for i in range(1, count):
        previous = {"$ref": f"#/$defs/d{i - 1}"}
        extended = {"allOf": [previous, {"properties": {f"y{i}": {"type": "integer"}}}]}
        definitions[f"d{i}"] = {"anyOf": [previous, extended]}
    return schema({"$ref": f"#/$defs/d{count - 1}", "$defs": definitions})


def sum_of_products(parts, choices):
    return schema(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"a{a}{b}": {"const": a}}} for a in range(choices)]} for b in range(parts)
            ]
        }
    )


def nested_arrays(levels):
    inner: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        inner = {"type": "array", "items": inner}
    return schema(inner)


HOSTILE = {
    "powers": regex("((a{1000}){1000}){7}"),
    "powers in a pattern": schema({"type": "string", "pattern": "^((a{1000}){1000}){7}$"}),
    "members": object_schema(8000),
    "multiples": slow_schema(),
    "pairs of multiples": schema({"allOf": [{"type": "integer", "multipleOf": p} for p in (9973, 9967)]}),
    "patterns": schema({"allOf": [{"type": "string", "pattern": f"a.{{{i}}}b"} for i in range(5, 25)]}),
    "a doubling chain": doubling_chain(14),
    "a long doubling chain": doubling_chain(25),
    "products": sum_of_products(12, 10),
    "depth": nested_arrays(900),
    "a circle": schema({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "string"}]}}}),
    "huge numbers": schema({"type": "number", "minimum": 1e300}),
    "lark with a schema": StructuredOutputsParams("grammar", 'start: %json {"type": "integer", "multipleOf": 999983}'),
    "GBNF brackets": StructuredOutputsParams("grammar", "root ::= " + "(" * 9000 + '"a"' + ")" * 9000),
}


def resident_bytes():
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * 4096


def process_ids(grammars):
    """Return the ids of the grammar processes that exist now."""
    server = str(grammars._fork_server._process.pid)
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
            # Only a process that has received a structure has this score.
            confined = stat.with_name("oom_score_adj").read_text().strip() == "1000"
        except OSError:
            continue
        if parent == server and confined:
            pids.append(int(stat.parent.name))
    return pids


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)


@pytest.mark.parametrize("structure", HOSTILE.values(), ids=HOSTILE)
def test_hostile_structures_are_refused_at_no_cost_to_the_model_process(open_grammars, structure):
    grammars = open_grammars()
    grammars.compile(regex("a")).result(60)
    gc.collect()
    resident_before, processor_time_before = resident_bytes(), time.process_time()
    for _ in range(3):
        with pytest.raises(InvalidValue) as raised:
            grammars.compile(structure).result(60)
        assert str(raised.value).startswith("[invalid_value:structured_outputs] This cannot be enforced: ")
    assert time.process_time() - processor_time_before < 0.5
    assert resident_bytes() - resident_before < 16 * 2**20
    wait_for(lambda: len(process_ids(grammars)) == 1)


def test_many_refused_structures_leave_no_memory_or_processes(open_grammars):
    grammars = open_grammars()
    resident_before = resident_bytes()
    for number in range(12):
        with pytest.raises(InvalidValue, match="more than 1 s or 128 MB"):
            grammars.compile(regex(f"((a{{1000}}){{1000}}){{{7 + number}}}")).result(60)
    assert resident_bytes() - resident_before < 16 * 2**20
    wait_for(lambda: not process_ids(grammars))


def test_fast_structures_do_not_wait_for_slow_ones(open_grammars):
    grammars = open_grammars(compile_seconds=30.0, memory_bytes=2**30, total_memory_bytes=2**32)
    slow = [grammars.compile(object_schema(8000 + number)) for number in range(3)]
    for number in range(5):
        grammars.compile(regex(f"[a-z]{{{number + 1}}}")).result(60)
    assert not slow[1].done() and not slow[2].done()
    for future in slow[1:]:
        future.cancel()


def test_equal_structures_are_compiled_once(open_grammars, monkeypatch):
    grammars = open_grammars()
    packets = []
    request_process = grammars._fork_server.request_process

    def recording_request_process(packet, descriptors):
        packets.append(packet)
        return request_process(packet, descriptors)

    monkeypatch.setattr(grammars._fork_server, "request_process", recording_request_process)
    results = {type(future.exception(60)) for future in [grammars.compile(slow_schema()) for _ in range(50)]}
    assert results == {InvalidValue} and len(packets) == 2  # one fast attempt and one slow
    assert isinstance(grammars.compile(slow_schema()).exception(60), InvalidValue) and len(packets) == 2
    compiled = [future.result(60) for future in [grammars.compile(regex("ab")) for _ in range(50)]]
    assert len({grammar._process for grammar in compiled}) == 1 and len(packets) == 3


def test_slow_structures_beyond_the_queue_are_refused_as_overloaded(open_grammars):
    grammars = open_grammars(max_slow_queue=1, compile_seconds=30.0, memory_bytes=2**30, total_memory_bytes=2**32)
    futures = [grammars.compile(object_schema(8000 + number)) for number in range(4)]
    wait_for(lambda: any(future.done() for future in futures))
    assert any(isinstance(future.exception(0), Overloaded) for future in futures if future.done())
    assert grammars.compile(regex("ab")).result(60)


def test_cancelled_structures_are_not_compiled(open_grammars, monkeypatch):
    grammars = open_grammars(compile_seconds=30.0, memory_bytes=2**30, total_memory_bytes=2**32)
    first, *others = [grammars.compile(object_schema(8000 + number)) for number in range(4)]
    assert all(future.cancel() for future in others)
    first.result(60)
    wait_for(lambda: not len(grammars._queue))
    assert len(grammars._processes) <= 2  # one of the cancelled jobs may have been running already


def test_most_recently_used_processes_stay_cached(open_grammars):
    grammars = open_grammars(max_idle=2)

    def process(text):
        return grammars.compile(regex(text)).result(60)._process

    first, second = process("a"), process("b")
    assert process("a") is first
    process("c")
    wait_for(lambda: len(process_ids(grammars)) == 2)
    assert process("a") is first and process("b") is not second


def test_process_in_use_is_not_evicted_and_others_wait_for_capacity(open_grammars):
    grammars = open_grammars(max_processes=1)
    first = grammars.compile(regex("a")).result(60)
    second = grammars.compile(regex("b"))
    assert grammars.compile(regex("a")).result(60)._process is first._process
    assert not second.done()
    del first
    second.result(60)
    wait_for(lambda: len(process_ids(grammars)) == 1)


def test_largest_process_is_killed_when_total_memory_is_exceeded(open_grammars, scripted_engine, collect):
    large, *others = [schema({"type": "integer", "multipleOf": 104_729 - number}) for number in (0, 18, 20)]
    size = open_grammars().compile(large).result(60)._process.nbytes()
    assert size > 16 * 2**20
    grammars = open_grammars(total_memory_bytes=5 * size // 2)
    compiled = [grammars.compile(structure).result(60) for structure in (large, *others)]
    wait_for(lambda: len(process_ids(grammars)) == 2)
    engine, _ = scripted_engine()
    results = [collect(engine, PROMPT, grammar, max_tokens=3).wait() for grammar in compiled]
    assert sorted(result.error is None for result in results) == [False, True, True]
    assert all("too much time or memory" in str(result.error) for result in results if result.error)


def suspend(grammar):
    os.kill(grammar._process._pid, signal.SIGSTOP)


def resume(grammar):
    os.kill(grammar._process._pid, signal.SIGCONT)


def test_late_mask_delays_no_other_sequence(open_grammars, scripted_engine, collect, tokenizer):
    """The sequence repeats its last token until the mask arrives. The others go on, and its answer is the same."""
    engine, runner = scripted_engine(max_rows=4)
    grammar = open_grammars().compile(schema(WORD)).result(60)
    options = {"max_tokens": 400, "temperature": 1.0, "seed": 3, "logprobs": 1}
    undelayed = collect(engine, PROMPT, grammar, **options).wait()
    suspend(grammar)
    late = collect(engine, PROMPT, grammar, **options)
    try:
        late.has_first_token.wait(60)
        unconstrained = collect(engine, PROMPT, max_tokens=200).wait()
        assert not late.ended.is_set() and late.num_tokens == 1
    finally:
        resume(grammar)
    assert unconstrained.texts[0] == tokenizer.decode(runner.expected_answer(PROMPT, 200))
    late.wait()
    assert (late.texts, late.num_tokens) == (undelayed.texts, undelayed.num_tokens)
    logprobs = [[entry for event in answer.events for entry in event.logprobs] for answer in (late, undelayed)]
    assert logprobs[0] == logprobs[1]
    assert engine.stats.tokens_out == 200 + undelayed.num_tokens * 2


@pytest.mark.parametrize(("text", "max_tokens", "reason"), [("a", 10, "stop"), ("a", 1, "stop"), ("ab", 1, "length")])
def test_late_completion_sends_only_the_finish_reason(
    open_grammars, scripted_engine, collect, text, max_tokens, reason
):
    engine, _ = scripted_engine()
    grammar = open_grammars().compile(StructuredOutputsParams("choice", json.dumps([text]))).result(60)
    suspend(grammar)
    try:
        collector = collect(engine, PROMPT, grammar, max_tokens=max_tokens)
        assert collector.has_first_token.wait(60) and not collector.ended.wait(0.1)
    finally:
        resume(grammar)
    collector.wait()
    assert (collector.texts, collector.finish_reasons, collector.num_tokens) == (["a"], [reason], 1)
    assert collector.events[-1].num_tokens == 0 and engine.stats.tokens_out == 1


def test_slow_grammar_delays_steps_less_and_less(open_grammars, tokenizer):
    grammar = open_grammars().compile(schema(WORD)).result(60)
    matchers = [grammar.new_matcher() for _ in range(40)]
    suspend(grammar)
    waits = []
    try:
        for matcher in matchers:
            waits.append(grammar._process.max_wait_seconds)
            assert matcher.consume(tokenizer.token_to_id('"')) is None
        assert grammar._process.max_wait_seconds < 0.0001
        assert sum(waits) < 0.008
    finally:
        resume(grammar)
    assert all(matcher.banned_tokens(60) is not None for matcher in matchers)


def test_process_that_dies_fails_only_its_own_answers(open_grammars, scripted_engine, collect):
    grammars = open_grammars()
    engine, _ = scripted_engine(seconds=0.003)
    killed, other = grammars.compile(regex("[a-z]{900}")).result(60), grammars.compile(regex("[a-c]{60}")).result(60)
    collectors = [collect(engine, PROMPT, grammar, max_tokens=900) for grammar in (killed, killed, other)]
    collectors[0].has_first_token.wait(60)
    killed._process.kill()
    for collector in collectors[:2]:
        assert str(collector.wait().error).startswith("[invalid_value:structured_outputs] This cannot be enforced")
    assert collectors[2].wait().finish_reasons == ["stop"] and len(collectors[2].texts[0]) == 60
    with pytest.raises(InvalidValue):
        killed.new_matcher()
    recompiled = grammars.compile(regex("[a-z]{900}")).result(60)
    assert recompiled._process is not killed._process and recompiled.new_matcher().banned_tokens(60) is not None


def num_sockets(grammar):
    """Return how many sockets the process of a grammar has open: one of its own, and one for each answer."""
    count = 0
    for file in Path(f"/proc/{grammar._process._pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has just been closed
            count += "socket" in str(file.readlink())
    return count


@pytest.mark.parametrize("ending", ["complete", "cut", "cancelled", "failed"])
def test_an_answer_that_ends_closes_its_channel_to_the_grammar_process(open_grammars, manual_engine, collect, ending):
    grammar = open_grammars().compile(regex("[a-z]{9}")).result(60)
    num_sockets_before = num_sockets(grammar)
    engine, runner = manual_engine()
    collector = collect(engine, PROMPT, grammar, n=2, max_tokens=4 if ending == "cut" else 20)
    sequences = engine._groups[collector.generation].sequences
    engine.iterate_until(lambda: all(sequence.last_token >= 0 for sequence in sequences))
    matchers = [sequence._matcher for sequence in sequences]  # so that no garbage collection closes them
    wait_for(lambda: num_sockets(grammar) == num_sockets_before + 2)
    if ending == "cancelled":
        engine.cancel(collector.generation)
    elif ending == "failed":
        runner.raises_for = lambda rows: True
    engine.iterate_until(collector.ended.is_set)
    assert (collector.error is None) == (ending in ("complete", "cut"))
    assert [matcher._channel.fileno() for matcher in matchers] == [-1, -1]
    wait_for(lambda: num_sockets(grammar) == num_sockets_before)
    for matcher in matchers:
        matcher.close()  # a second time has no effect


def test_answers_over_their_matching_time_fail(open_grammars, scripted_engine, collect):
    engine, _ = scripted_engine()
    grammar = open_grammars(base_matching_seconds=0.0, matching_seconds_per_token=0.0).compile(schema(WORD)).result(60)
    assert "takes too long to follow" in str(collect(engine, PROMPT, grammar, max_tokens=900).wait().error)


SPIN = """
import socket, sys
from backends.llm.structured_outputs.limits import Limits
from backends.llm.structured_outputs.grammar_process import _MatcherServer

class Spins:
    def deep_copy(self):
        return self

    def consume_token(self, token):
        while True:
            pass

_MatcherServer(Spins(), Limits(step_seconds=0.05), socket.socket(fileno=int(sys.argv[1]))).serve()
"""


def test_kernel_ends_a_process_that_exceeds_the_time_of_a_token():
    """The kernel's timer works whatever the library is doing."""
    channel, process_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    answer, answer_process_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with channel, answer:
        with process_end, answer_process_end:
            command = [sys.executable, "-c", SPIN, str(process_end.fileno())]
            process = subprocess.Popen(command, pass_fds=[process_end.fileno()], env={"PYTHONPATH": str(ROOT)})
            socket.send_fds(channel, [b"a"], [answer_process_end.fileno()])
        answer.send(TOKEN.pack(5))
        assert process.wait(60) == -signal.SIGPROF
        assert answer.recv(100) == b""


def test_fork_server_is_restarted_after_it_died(open_grammars, caplog):
    grammars = open_grammars()
    compiled_before = grammars.compile(regex("a")).result(60)
    grammars._fork_server._process.kill()
    grammars._fork_server._process.wait()
    assert grammars.compile(regex("b")).result(60).new_matcher().banned_tokens(60) is not None
    assert compiled_before.new_matcher().banned_tokens(60) is not None  # its process did not need the server


def test_closing_fails_waiting_futures_and_leaves_no_process(open_grammars):
    grammars = open_grammars(compile_seconds=30.0, memory_bytes=2**30, total_memory_bytes=2**32)
    grammars.compile(regex("a")).result(60)
    waiting = [grammars.compile(object_schema(8000 + number)) for number in range(2)]
    wait_for(lambda: len(process_ids(grammars)) >= 2)
    pids = process_ids(grammars)
    grammars.close()
    assert all(isinstance(future.exception(60), EngineFailed) for future in waiting)
    assert isinstance(grammars.compile(regex("a")).exception(60), EngineFailed)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_unreadable_tokenizer_raises_at_once():
    class UnreadableTokenizer:
        def to_str(self):
            return "{}"

    with pytest.raises(ValueError, match="tokenizer"):
        GrammarCompiler(cast(Tokenizer, UnreadableTokenizer()), 259, frozenset())


def test_random_structures_are_compiled_or_refused(open_grammars):
    rng = random.Random(11)
    grammars = open_grammars()

    def expression(levels):
        if not levels:
            return rng.choice(["a", ".", r"\p{L}", "[^x]", r"[\s\S]", "(foo|bar)", r"\d"])
        inner = expression(levels - 1)
        low = rng.choice([0, 1, 7, 1000])
        return rng.choice(
            [
                f"({inner}){{{low},{low + rng.choice([0, 1, 3000])}}}",
                f"({inner})*{expression(levels - 1)}",
                f"{inner}|b",
            ]
        )

    futures = [grammars.compile(regex(expression(rng.randrange(5)))) for _ in range(60)]
    for future in futures:
        error = future.exception(120)
        assert error is None or isinstance(error, GenerationError)


def test_limits_grow_with_the_models_parameters():
    assert limits_for(1, 128 * 2**20, 16) == Limits()
    large = limits_for(30, 2**30, 256)
    assert (large.compile_seconds, large.memory_bytes, large.max_processes, large.max_idle) == (30, 2**30, 512, 256)
    assert large.total_memory_bytes == 8 * 2**30 and large.wall_seconds == 1800
