"""The engine `vllm` over a stand-in for vLLM."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from backends.llm.engine import Delta, Generation, ImageInputs, Logprob, PromptExpanded
from backends.llm.engines import read_options
from backends.llm.external.engine import ExternalEngine
from backends.llm.external.stats import VllmStats
from backends.llm.external.vllm import engine_arguments, start_runtime
from backends.llm.metrics import metric_names
from backends.llm.model_loader import LoadedModel, load_model
from backends.llm.sampling_params import SamplingParams, StructuredOutputsParams
from backends.llm.structured_outputs.lark_text import to_lark
from backends.serving.errors import (
    Cancelled,
    ContextLengthExceeded,
    EngineFailed,
    InvalidValue,
    Overloaded,
    UnsupportedOption,
)
from tests.unit.llm.external import vllm_stand_in
from tests.unit.llm.external.vllm_stand_in import EOS, AsyncLLM, next_token

PROMPT = [70, 71, 72]
EOS_IDS = frozenset({EOS, 2})


@pytest.fixture
def open_engine(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ExternalEngine]]:
    """Make engines over the stand-in. They are closed at the end, and their threads must be gone then."""
    vllm_stand_in.install(monkeypatch)
    engines: list[ExternalEngine] = []

    def make(max_waiting: int = 100, adapters: dict[str, str] | None = None, **options: Any) -> ExternalEngine:
        died = options.pop("on_death", lambda: None)
        parameters = {name: {"string_value": str(value)} for name, value in {"engine": "vllm"}.items()}
        arguments = engine_arguments({"model": "m", **options}, read_options(parameters), len(adapters or {}))
        stats = VllmStats(max_rows=arguments["max_num_seqs"])
        runtime = partial(start_runtime, arguments, EOS_IDS, adapters or {}, stats)
        engines.append(
            ExternalEngine(
                runtime,
                stats,
                tokenizer,
                EOS_IDS,
                max_waiting,
                adapters=frozenset(adapters or {}),
                on_death=died,
            )
        )
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("llm-")]


def expected_text(tokenizer: Tokenizer, prompt: list[int], count: int) -> str:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return str(tokenizer.decode(tokens[len(prompt) :]))


def only_request() -> tuple[Any, vllm_stand_in.SamplingParams, Any]:
    (request,) = AsyncLLM.latest.requests.values()
    return request


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition does not hold in time"
        time.sleep(0.005)


@pytest.mark.parametrize("tokens_per_output", [1, 3, 100])
def test_an_answer_has_the_text_of_its_tokens(open_engine, collect, tokenizer, tokens_per_output: int) -> None:
    engine = open_engine()
    AsyncLLM.latest.tokens_per_output = tokens_per_output
    answer = collect(engine, PROMPT, max_tokens=10).wait()
    assert answer.texts == [expected_text(tokenizer, PROMPT, 10)]
    assert (answer.finish_reasons, answer.num_tokens) == (["length"], 10)
    assert len(answer.events) == -(-10 // tokens_per_output)
    assert not AsyncLLM.latest.aborted


def test_an_answer_ends_where_the_context_ends(open_engine, collect) -> None:
    engine = open_engine(max_model_len=20)
    answer = collect(engine, PROMPT).wait()
    assert (answer.finish_reasons, answer.num_tokens) == (["length"], 17)
    with pytest.raises(ContextLengthExceeded):
        collect(engine, [70] * 20)


def test_a_stop_string_cuts_the_text_and_aborts_the_request(open_engine, collect, tokenizer) -> None:
    engine = open_engine()
    AsyncLLM.latest.tokens_per_output = 4
    text = expected_text(tokenizer, PROMPT, 40)
    stop = text[5:8]
    answer = collect(engine, PROMPT, stop=(stop,), max_tokens=400).wait()
    assert answer.texts == [text[: text.index(stop)]]
    assert (answer.finish_reasons, answer.num_tokens) == (["stop"], text.index(stop) + 3)
    wait_until(lambda: len(AsyncLLM.latest.aborted) == 1)
    params = only_request()[1]
    assert params.stop is None


def test_stop_strings_count_from_the_minimum_on(open_engine, collect, tokenizer) -> None:
    engine = open_engine()
    text = expected_text(tokenizer, PROMPT, 40)
    answer = collect(engine, PROMPT, stop=(text[2],), min_tokens=10, max_tokens=40).wait()
    end = text.find(text[2], 10)
    assert answer.texts == [text[:end] if end >= 0 else text]


def test_a_stop_token_is_hidden_and_has_no_log_probability(open_engine, collect, tokenizer) -> None:
    engine = open_engine()
    tokens = list(PROMPT)
    for _ in range(6):
        tokens.append(next_token(tokens))
    first = tokens.index(tokens[-1], len(PROMPT))
    AsyncLLM.latest.tokens_per_output = 4
    answer = collect(engine, PROMPT, stop_token_ids=(tokens[-1],), logprobs=2).wait()
    assert answer.texts == [tokenizer.decode(tokens[len(PROMPT) : first])]
    assert (answer.finish_reasons, answer.num_tokens) == (["stop"], first - len(PROMPT) + 1)
    entries = [entry for event in answer.events for entry in event.logprobs]
    assert [entry[0] for entry in entries] == [Logprob(t, -9999.0, 100) for t in tokens[len(PROMPT) : first]]
    assert all(entry[1:] == (Logprob(201, -1.0, 1), Logprob(202, -2.0, 2)) for entry in entries)


def test_each_answer_is_a_request_with_its_own_seed(open_engine, collect, tokenizer) -> None:
    engine = open_engine()
    answer = collect(engine, PROMPT, n=3, seed=-1, temperature=1.0, max_tokens=4, prompt_logprobs=1).wait()
    assert answer.finish_reasons == ["length"] * 3 and answer.num_tokens == 12
    params = [params for _, params, _ in AsyncLLM.latest.requests.values()]
    assert [p.n for p in params] == [1, 1, 1]
    assert {p.seed for p in params} == {0, 1, 2**63 - 1}
    assert [p.prompt_logprobs for p in params] == [1, None, None]
    (first,) = [event for event in answer.events if event.logprobs]
    assert first.index == 0
    assert [entry[0].token for entry in first.logprobs] == PROMPT
    assert first.logprobs[0] == (Logprob(70, None, None),)


def test_no_tokens_are_shown_where_only_the_prompt_is_wanted(open_engine, collect) -> None:
    answer = collect(open_engine(), PROMPT, max_tokens=0, prompt_logprobs=0).wait()
    assert (answer.texts, answer.finish_reasons, answer.num_tokens) == ([""], ["length"], 0)
    assert only_request()[1].max_tokens == 1
    assert len(answer.events[0].logprobs) == 3


def test_options_reach_vllm(open_engine, collect) -> None:
    collect(
        open_engine(),
        PROMPT,
        max_tokens=5,
        temperature=0.5,
        top_p=0.0,
        top_k=3,
        min_p=0.1,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        repetition_penalty=1.5,
        logit_bias=((5, 2.0),),
        ignore_eos=True,
        stop_token_ids=(9,),
    ).wait()
    params = only_request()[1]
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (0.0, 1.0, 3, 0.1)
    assert (params.presence_penalty, params.frequency_penalty, params.repetition_penalty) == (1.0, -1.0, 1.5)
    assert (params.logit_bias, params.ignore_eos, params.stop_token_ids) == ({5: 2.0}, True, [9])


def test_ends_of_a_sequence_are_those_of_the_checkpoint(open_engine, collect) -> None:
    collect(open_engine(), PROMPT, max_tokens=2).wait()
    assert only_request()[1].stop_token_ids == [1, 2]


@pytest.mark.parametrize(("option", "value"), [("temperature", 3.0), ("repetition_penalty", float("inf"))])
def test_an_option_that_vllm_refuses_is_named(open_engine, collect, option: str, value: float) -> None:
    engine = open_engine()
    with pytest.raises(InvalidValue, match=rf"^\[invalid_value:{option}\] {option} is out of range\.$"):
        collect(engine, PROMPT, **{option: value})
    assert engine.stats.num_open == 0


def test_a_prompt_that_its_images_make_too_long_is_refused(open_engine, collect) -> None:
    engine = open_engine(max_model_len=10)
    AsyncLLM.latest.num_expanded_tokens = 50
    answer = collect(engine, PROMPT).wait()
    assert isinstance(answer.error, ContextLengthExceeded)
    wait_until(lambda: engine.stats.rows_active == 0)


STRUCTURES = [
    ("json", '{"type": "integer"}', {"type": "integer"}),
    ("json", "true", {}),
    ("choice", '["yes", "no"]', ["yes", "no"]),
    ("regex", "a+", "a+"),
    ("grammar", 'start: "a"', 'start: "a"'),
]


@pytest.mark.parametrize(("kind", "text", "handed_over"), STRUCTURES)
@pytest.mark.parametrize("backend", ["guidance", "xgrammar"])
def test_vllm_enforces_structures(open_engine, collect, kind: Any, text: str, handed_over: Any, backend: str) -> None:
    engine = open_engine(structured_outputs_config={"backend": backend})
    assert engine.structure_enforcement == "engine"
    structure = StructuredOutputsParams(kind, text)
    collect(engine, PROMPT, structured_outputs=structure, ignore_eos=True, min_tokens=3, max_tokens=4).wait()
    params = only_request()[1]
    assert params.structured_outputs is not None
    given = {name: value for name, value in vars(params.structured_outputs).items() if value is not None}
    assert given == ({"grammar": to_lark(kind, text)} if backend == "guidance" else {kind: handed_over})
    # Only the end of the sequence may follow a complete structure.
    assert (params.ignore_eos, params.min_tokens, params.stop_token_ids) == (False, 0, [1, 2])


def test_cancelling_aborts_the_request(open_engine, collect) -> None:
    engine = open_engine()
    AsyncLLM.latest.seconds = 0.01
    answer = collect(engine, PROMPT, n=2)
    assert answer.has_first_token.wait(10)
    engine.cancel(answer.generation)
    assert isinstance(answer.wait().error, Cancelled)
    wait_until(lambda: sorted(AsyncLLM.latest.aborted) == sorted(AsyncLLM.latest.requests))
    assert (engine.stats.rows_active, engine.stats.rows_waiting) == (0, 0)
    engine.cancel(answer.generation)


def test_the_queue_is_bounded(open_engine, collect) -> None:
    engine = open_engine(max_waiting=2, max_num_seqs=1)
    AsyncLLM.latest.seconds = 0.01
    with pytest.raises(InvalidValue, match="3 answers"):
        collect(engine, PROMPT, n=4)
    answers = [collect(engine, PROMPT), collect(engine, PROMPT, n=2)]
    wait_until(lambda: engine.stats.rows_waiting == 2)
    assert engine.stats.rows_active == 1
    wait_until(lambda: engine.stats.kv_cache_usage == 0.25)
    with pytest.raises(Overloaded):
        collect(engine, PROMPT)
    for answer in answers:
        engine.cancel(answer.generation)
        answer.wait()
    collect(engine, PROMPT, max_tokens=2).wait()


def test_figures_tell_of_the_prefix_cache(open_engine, collect) -> None:
    engine = open_engine()
    collect(engine, PROMPT, max_tokens=4).wait()
    AsyncLLM.latest.num_cached_tokens = 2
    collect(engine, PROMPT, max_tokens=4).wait()
    stats = engine.stats
    assert (stats.tokens_in, stats.prefix_tokens_reused, stats.tokens_out) == (4, 2, 8)
    gauges, counters = metric_names(stats)
    assert set(gauges) == {"rows_active", "rows_waiting", "kv_cache_usage"}
    assert "steps" not in counters and counters["preemptions"][0] == "llm_preemptions_total"


def test_a_closed_engine_fails_what_is_open(open_engine, collect) -> None:
    engine = open_engine()
    AsyncLLM.latest.seconds = 0.01
    answer = collect(engine, PROMPT)
    assert answer.has_first_token.wait(10)
    engine.close()
    assert isinstance(answer.wait().error, EngineFailed) and AsyncLLM.latest.is_shut_down
    with pytest.raises(EngineFailed, match="closed"):
        collect(engine, PROMPT)
    engine.cancel(answer.generation)


def test_the_death_of_vllm_fails_all_answers_and_is_reported_once(open_engine, collect) -> None:
    deaths: list[int] = []
    engine = open_engine(on_death=lambda: deaths.append(1))
    AsyncLLM.latest.seconds = 0.01
    answers = [collect(engine, PROMPT), collect(engine, PROMPT, n=2)]
    assert all(answer.has_first_token.wait(10) for answer in answers)
    AsyncLLM.latest.errored = True
    assert all(isinstance(answer.wait().error, EngineFailed) for answer in answers)
    wait_until(lambda: deaths == [1])
    with pytest.raises(EngineFailed):
        collect(engine, PROMPT)
    assert engine.stats.rows_active == 0


def test_a_death_that_no_request_has_seen_is_reported_by_the_next(open_engine, collect) -> None:
    deaths: list[int] = []
    engine = open_engine(on_death=lambda: deaths.append(1))
    AsyncLLM.latest.errored = True
    with pytest.raises(EngineFailed, match="has died"):
        collect(engine, PROMPT)
    wait_until(lambda: deaths == [1])


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_end_that_is_a_failure_fails_the_request(open_engine, collect, reason: str) -> None:
    engine = open_engine()
    AsyncLLM.latest.finish_reason = reason
    assert isinstance(collect(engine, PROMPT).wait().error, EngineFailed)


def test_vllm_may_end_an_answer_for_a_reason_of_its_own(open_engine, collect) -> None:
    engine = open_engine()
    AsyncLLM.latest.finish_reason = "repetition"
    answer = collect(engine, PROMPT).wait()
    assert (answer.finish_reasons, answer.num_tokens) == (["repetition"], 1)


def test_an_adapter_is_handed_over_by_its_name(open_engine, collect) -> None:
    engine = open_engine(adapters={"sql": "/adapters/sql", "law": "/adapters/law"})
    assert engine.adapters == {"sql", "law"}
    collect(engine, PROMPT, max_tokens=2, lora_name="law").wait()
    lora = only_request()[2]
    assert (lora.lora_name, lora.lora_path) == ("law", "/adapters/law") and lora.lora_int_id >= 1


def test_images_are_handed_over_and_the_prompt_grows(open_engine) -> None:
    engine = open_engine()
    AsyncLLM.latest.num_expanded_tokens = 20
    events: list[Any] = []
    ended = threading.Event()

    def sink(event: Any) -> None:
        events.append(event)
        if isinstance(event, Delta) and event.finish_reason:
            ended.set()

    prompt = np.array(PROMPT, np.int64)
    picture = object()
    engine.submit(Generation(prompt, SamplingParams(max_tokens=2), sink, image_inputs=ImageInputs(prompt, (picture,))))
    assert ended.wait(10)
    assert only_request()[0]["multi_modal_data"] == {"image": [picture]}
    assert events[0] == PromptExpanded(23) and engine.stats.tokens_in == 23


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 1}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    (tmp_path / "model.json").write_text(json.dumps({"model": "weights", "max_num_seqs": 2}))
    (tmp_path / "weights").mkdir()
    return tmp_path


def load(folder: Path, tokenizer: Tokenizer, **parameters: object) -> LoadedModel:
    values = {name: {"string_value": str(value)} for name, value in {"engine": "vllm", **parameters}.items()}
    return load_model(folder, tokenizer, read_options(values))


def test_a_model_is_loaded_from_its_folder(model_folder: Path, tokenizer: Tokenizer, monkeypatch) -> None:
    vllm_stand_in.install(monkeypatch)
    (model_folder / "multi_lora.json").write_text(json.dumps({"sql": "adapter"}))
    loaded = load(model_folder, tokenizer, max_rows=8, context_length=500, kv_memory=10)
    try:
        assert (loaded.bos, loaded.eos, loaded.vision_processor) == (0, frozenset({1, 2}), None)
        assert (loaded.engine.context_length, loaded.engine.vocab_size) == (500, 259)
        assert loaded.engine.adapters == {"sql"}
        args = AsyncLLM.latest.args
        # What model.json says holds, and the parameters of config.pbtxt stand in for the rest.
        assert (args.model, args.max_num_seqs, args.max_model_len) == (str(model_folder / "weights"), 2, 500)
        assert (args.kv_cache_memory_bytes, args.enable_lora, args.max_loras) == (10 * 2**20, True, 1)
    finally:
        loaded.engine.close()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.json", None, "model.json is missing"),
        ("model.json", "{", "not JSON"),
        ("model.json", "{}", "names no model"),
        ("multi_lora.json", '{"a": 1}', "multi_lora.json"),
        ("config.json", "[]", "not a JSON object"),
    ],
)
def test_a_broken_folder_is_named(
    model_folder: Path, tokenizer: Tokenizer, monkeypatch, name: str, content: str | None, reason: str
) -> None:
    vllm_stand_in.install(monkeypatch)
    if content is None:
        (model_folder / name).unlink()
    else:
        (model_folder / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        load(model_folder, tokenizer)


def test_arguments_that_vllm_refuses_leave_no_thread(model_folder: Path, tokenizer: Tokenizer, monkeypatch) -> None:
    vllm_stand_in.install(monkeypatch)
    (model_folder / "model.json").write_text(json.dumps({"model": "m", "beams": 4}))
    with pytest.raises(TypeError, match="beams"):
        load(model_folder, tokenizer)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("llm-")]


def test_only_engines_with_adapters_have_the_option(scripted_engine, tokenizer) -> None:
    from backends.llm.sampling_params import parse_sampling_params

    with pytest.raises(UnsupportedOption, match="no option 'lora_name'"):
        parse_sampling_params('{"lora_name": "sql"}', 259)
    assert parse_sampling_params('{"lora_name": "sql"}', 259, adapters={"sql"}).lora_name == "sql"
    with pytest.raises(InvalidValue, match="no adapter 'law', only sql"):
        parse_sampling_params('{"lora_name": "law"}', 259, adapters={"sql"})
