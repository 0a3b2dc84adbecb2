"""The engine `llmapi` over a stand-in for TensorRT-LLM's LLM API."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from backends.llm.engine import Engine, Logprob
from backends.llm.engines import read_options
from backends.llm.metrics import metric_names
from backends.llm.model_loader import LoadedModel, load_model
from backends.llm.sampling_params import StructuredOutputsParams
from backends.llm.structured_outputs.lark_text import to_lark
from backends.serving.errors import Cancelled, ContextLengthExceeded, EngineFailed, InvalidValue, UnsupportedOption
from tests.unit.llm.external import llmapi_stand_in
from tests.unit.llm.external.llmapi_stand_in import LLM
from tests.unit.llm.external.vllm_stand_in import next_token

PROMPT = [70, 71, 72]


def write_folder(folder: Path, model: str) -> None:
    config = {"bos_token_id": 0, "eos_token_id": 1, "vocab_size": 259, "max_position_embeddings": 1000}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    (folder / "model.yaml").write_text(model)


def load(folder: Path, tokenizer: Tokenizer, **parameters: object) -> LoadedModel:
    values = {name: {"string_value": str(value)} for name, value in {"engine": "llmapi", **parameters}.items()}
    return load_model(folder, tokenizer, read_options(values))


@pytest.fixture
def open_engine(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Load engines over the stand-in from a folder with the given model.yaml. They are closed at the end."""
    llmapi_stand_in.install(monkeypatch)
    engines: list[Engine] = []

    def make(model: str = "model: m", **parameters: object) -> Engine:
        write_folder(tmp_path, model)
        engines.append(load(tmp_path, tokenizer, **parameters).engine)
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("llm-")]


def expected_tokens(prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


def only_params() -> llmapi_stand_in.SamplingParams:
    ((_, params, _),) = LLM.latest.requests
    return params


@pytest.mark.parametrize("tokens_per_output", [1, 3, 100])
def test_each_token_of_cumulative_results_is_shown_once(open_engine, collect, tokenizer, tokens_per_output) -> None:
    engine = open_engine()
    LLM.latest.tokens_per_output = tokens_per_output
    answer = collect(engine, PROMPT, max_tokens=10).wait()
    assert answer.texts == [tokenizer.decode(expected_tokens(PROMPT, 10))]
    assert (answer.finish_reasons, answer.num_tokens) == (["length"], 10)
    assert not LLM.latest.aborted


@pytest.mark.parametrize("sampling", [{"temperature": 0.0, "top_p": 0.9}, {"top_p": 0.0}, {"top_k": 1}, {"min_p": 0.0}])
def test_greedy_is_greedy_for_all_releases(open_engine, collect, sampling: dict[str, Any]) -> None:
    collect(open_engine(), PROMPT, **{"max_tokens": 2, **sampling}).wait()
    assert only_params().is_greedy


@pytest.mark.parametrize("sampling", [{}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.2}])
def test_a_temperature_draws_for_all_releases(open_engine, collect, sampling: dict[str, Any]) -> None:
    collect(open_engine(), PROMPT, **{"max_tokens": 2, "temperature": 0.7, **sampling}).wait()
    params = only_params()
    assert not params.is_greedy and params.temperature == 0.7
    assert (params.top_k, params.min_p) == (sampling.get("top_k"), sampling.get("min_p"))


def test_several_answers_are_requests_of_their_own(open_engine, collect) -> None:
    answer = collect(open_engine(), PROMPT, n=3, max_tokens=4, seed=7).wait()
    assert answer.finish_reasons == ["length"] * 3 and answer.num_tokens == 12
    assert sorted(params.seed or 0 for _, params, _ in LLM.latest.requests) == [7, 8, 9]
    assert all((params.n, params.best_of) == (1, 1) for _, params, _ in LLM.latest.requests)


def test_requests_without_a_seed_draw_with_different_ones(open_engine, collect) -> None:
    engine = open_engine()
    for _ in range(3):
        collect(engine, PROMPT, max_tokens=1, temperature=1.0).wait()
    assert len({params.seed for _, params, _ in LLM.latest.requests}) == 3
    collect(engine, PROMPT, max_tokens=1, temperature=1.0, seed=-5).wait()
    assert LLM.latest.requests[-1][1].seed == 2**64 - 5


def test_a_stop_token_is_hidden_and_counted(open_engine, collect, tokenizer) -> None:
    engine = open_engine()
    LLM.latest.tokens_per_output = 4
    tokens = expected_tokens(PROMPT, 6)
    first = tokens.index(tokens[-1])
    answer = collect(engine, PROMPT, stop_token_ids=(tokens[-1],), logprobs=0).wait()
    assert answer.texts == [tokenizer.decode(tokens[:first])]
    assert (answer.finish_reasons, answer.num_tokens) == (["stop"], first + 1)
    entries = [entry for event in answer.events for entry in event.logprobs]
    assert entries == [(Logprob(token, -9.0, 100),) for token in tokens[:first]]
    params = only_params()
    assert (params.end_id, params.stop_token_ids) == (1, sorted({2, tokens[-1]}))


def test_log_probabilities_list_the_likeliest_tokens(open_engine, collect) -> None:
    answer = collect(open_engine(), PROMPT, max_tokens=3, logprobs=2).wait()
    entries = [entry for event in answer.events for entry in event.logprobs]
    assert len(entries) == 3
    assert all(entry[1:] == (Logprob(201, -1.0, 1), Logprob(202, -2.0, 2)) for entry in entries)


def test_no_log_probability_is_invented(open_engine, collect) -> None:
    engine = open_engine()
    LLM.latest.omits_chosen = True
    assert isinstance(collect(engine, PROMPT, max_tokens=3, logprobs=2).wait().error, EngineFailed)


def test_log_probabilities_of_the_prompt_are_refused(open_engine, collect) -> None:
    with pytest.raises(UnsupportedOption, match="prompt_logprobs"):
        collect(open_engine(), PROMPT, prompt_logprobs=1)


def test_stop_strings_are_found_here_and_abort_the_request(open_engine, collect, tokenizer) -> None:
    engine = open_engine()
    text = tokenizer.decode(expected_tokens(PROMPT, 40))
    answer = collect(engine, PROMPT, stop=(text[5:8],), max_tokens=400).wait()
    assert answer.texts == [text[: text.index(text[5:8])]] and answer.finish_reasons == ["stop"]
    end = time.monotonic() + 10
    while not LLM.latest.aborted:
        assert time.monotonic() < end
        time.sleep(0.005)
    params = only_params()
    assert params.stop is None and not params.detokenize and params.include_stop_str_in_output


def test_an_answer_without_a_limit_ends_where_the_context_ends(open_engine, collect) -> None:
    engine = open_engine(context_length=50)
    answer = collect(engine, PROMPT).wait()
    assert (answer.finish_reasons, answer.num_tokens) == (["length"], 47)
    assert collect(engine, PROMPT, max_tokens=0).wait().num_tokens == 0


def test_a_prompt_that_exceeds_a_batch_is_refused_unless_it_is_chunked(open_engine, collect) -> None:
    engine = open_engine("{model: m, max_num_tokens: 20, enable_chunked_prefill: false}")
    with pytest.raises(ContextLengthExceeded, match="30 tokens; this model takes 20"):
        collect(engine, [70] * 30)
    collect(open_engine("{model: m, max_num_tokens: 20}"), [70] * 30, max_tokens=1).wait()
    assert LLM.latest.arguments["enable_chunked_prefill"] is True


GUIDES = [
    ("json", '{"type": "integer"}', {"json": '{"type": "integer"}'}),
    ("choice", '["yes", "no"]', {"grammar": 'root ::= "yes" | "no"'}),
    ("regex", "a+", {"regex": "a+"}),
    ("grammar", 'root ::= "a"', {"grammar": 'root ::= "a"'}),
]


@pytest.mark.parametrize(("kind", "text", "guide"), GUIDES)
@pytest.mark.parametrize("backend", ["llguidance", "xgrammar"])
def test_structures_are_enforced_by_the_backend(open_engine, collect, kind, text, guide, backend: str) -> None:
    engine = open_engine(f"{{model: m, guided_decoding_backend: {backend}}}")
    assert engine.structure_enforcement == "engine"
    structure = StructuredOutputsParams(kind, text)
    collect(engine, PROMPT, structured_outputs=structure, ignore_eos=True, min_tokens=3, max_tokens=4).wait()
    params = only_params()
    given = {name: value for name, value in vars(params.guided_decoding).items() if value}
    assert given == ({"grammar": to_lark(kind, text)} if backend == "llguidance" else guide)
    assert (params.ignore_eos, params.min_tokens) == (False, 0)


def test_xgrammar_takes_no_lark(open_engine, collect) -> None:
    engine = open_engine("{model: m, guided_decoding_backend: xgrammar}")
    with pytest.raises(InvalidValue, match="GBNF"):
        collect(engine, PROMPT, structured_outputs=StructuredOutputsParams("grammar", 'start: "a"'))


def test_without_a_backend_no_structure_is_enforced(open_engine) -> None:
    assert open_engine("{model: m, guided_decoding_backend: null}").structure_enforcement == "none"
    assert open_engine().structure_enforcement == "engine"
    assert LLM.latest.arguments["guided_decoding_backend"] == "llguidance"


def test_biases_are_a_tensor_over_the_vocabulary(open_engine, collect) -> None:
    collect(open_engine(), PROMPT, max_tokens=1, logit_bias=((5, 2.0), (7, -100.0))).wait()
    bias = only_params().embedding_bias
    assert bias.shape == (259,) and (bias[5], bias[7], bias.abs().sum()) == (2.0, -100.0, 102.0)


def test_cancelling_aborts_the_request(open_engine, collect) -> None:
    engine = open_engine()
    LLM.latest.seconds = 0.01
    answer = collect(engine, PROMPT)
    assert answer.has_first_token.wait(10)
    engine.cancel(answer.generation)
    assert isinstance(answer.wait().error, Cancelled)
    engine.close()
    assert len(LLM.latest.aborted) == 1 and LLM.latest.is_shut_down


@pytest.mark.parametrize("reason", ["timeout", "cancelled"])
def test_an_end_that_is_a_failure_fails_the_request(open_engine, collect, reason: str) -> None:
    engine = open_engine()
    LLM.latest.finish_reason = reason
    assert isinstance(collect(engine, PROMPT).wait().error, EngineFailed)


def test_figures_tell_of_rows_and_of_the_prefix_cache(open_engine, collect) -> None:
    engine = open_engine("{model: m, max_batch_size: 1}")
    LLM.latest.seconds, LLM.latest.num_cached_tokens = 0.01, 2
    answers = [collect(engine, PROMPT), collect(engine, PROMPT)]
    assert all(answer.has_first_token.wait(10) for answer in answers)
    assert (engine.stats.rows_active, engine.stats.rows_waiting) == (1, 1)
    for answer in answers:
        engine.cancel(answer.generation)
    assert (engine.stats.tokens_in, engine.stats.prefix_tokens_reused) == (2, 4)
    gauges, counters = metric_names(engine.stats)
    # It tells neither of its memory nor of preemptions.
    assert set(gauges) == {"rows_active", "rows_waiting"} and "preemptions" not in counters


def test_the_arguments_of_nvidias_model_are_taken(open_engine, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    (tmp_path / "weights").mkdir()
    (tmp_path / "multi_lora.json").write_text('{"sql": "adapter"}')
    engine = open_engine(
        "model: ./weights\nbackend: pytorch\nkv_cache_config: {free_gpu_memory_fraction: 0.5}\n"
        "triton_config: {decoupled: true}\n",
        max_rows=5,
    )
    assert LLM.latest.model == str(tmp_path / "weights")
    assert LLM.latest.arguments["max_batch_size"] == 5 and engine.adapters == {"sql"}
    assert (engine.context_length, engine.vocab_size) == (1000, 259)
    assert LLM.latest.arguments["kv_cache_config"].free_gpu_memory_fraction == 0.5
    assert "OMPI_COMM_WORLD_RANK" not in os.environ


@pytest.mark.parametrize(
    ("model", "reason"), [("- a", "not a YAML mapping"), ("{", "not YAML"), ("{}", "names no model")]
)
def test_a_broken_file_is_named(open_engine, model: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_engine(model)
