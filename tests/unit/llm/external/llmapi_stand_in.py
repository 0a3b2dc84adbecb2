"""A stand-in for TensorRT-LLM's LLM API (1.2.1 and later), with its published names, refusals and traps.

Results hold all tokens of an answer so far. Stop tokens are cut off them. A temperature alone is greedy, as in 1.2.1.
Without a seed, all requests draw with the same one. The next token depends on all tokens before it.
"""

import asyncio
import sys
import types
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.unit.llm.external.vllm_stand_in import next_token

EOS = 1
LONGEST_DEFAULT_BATCH = 8192


@dataclass(kw_only=True)
class GuidedDecodingParams:
    json: Any = None
    regex: str | None = None
    grammar: str | None = None
    json_object: bool = False
    structural_tag: str | None = None

    def _validate(self) -> None:
        if sum(bool(value) for value in vars(self).values()) > 1:
            raise ValueError("Only one guide can be used for a request.")


@dataclass(kw_only=True)
class SamplingParams:
    end_id: int | None = None
    pad_id: int | None = None
    max_tokens: int = 32
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    embedding_bias: Any = None
    n: int = 1
    best_of: int | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    temperature: float | None = None
    min_tokens: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    min_p: float | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    guided_decoding: GuidedDecodingParams | None = None
    ignore_eos: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True

    def __post_init__(self) -> None:
        self.best_of = self.best_of or self.n
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise ValueError(f"require 0 <= top_p <= 1, got top_p={self.top_p}")
        if self.top_k is not None and self.top_k < 0:
            raise ValueError(f"require top_k >= 0, got top_k={self.top_k}")
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(f"require temperature >= 0, got temperature={self.temperature}")
        if self.best_of > 1 and self.is_greedy:
            raise ValueError("Greedy decoding in the LLM API does not allow multiple returns.")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise TypeError("incompatible function arguments: seed")
        if self.guided_decoding is not None:
            self.guided_decoding._validate()
        self.logprobs = self.logprobs and int(self.logprobs)

    @property
    def is_greedy(self) -> bool:
        """The rule of 1.2.1, or that of later releases: the adapter must suit both."""
        older = self.top_k in (None, 1) and self.top_p in (None, 0.0)
        newer = (
            (self.temperature is None and self.top_p is None and self.top_k is None)
            or self.top_k == 1
            or self.top_p == 0.0
            or self.temperature == 0
        )
        assert older == newer, "releases differ about these parameters"
        return older


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass(frozen=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""


@dataclass
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class RequestOutput:
    """One object, which each step changes."""

    def __init__(self, llm: "LLM", prompt: list[int], params: SamplingParams) -> None:
        asyncio.get_running_loop()  # else the queue of its results would be none of asyncio's
        self._llm, self._params = llm, params
        self.prompt_token_ids = prompt
        self.cached_tokens = llm.num_cached_tokens
        self.outputs = [CompletionOutput(0)]
        self.finished = self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True
        self._llm.aborted.append(self)

    def __aiter__(self) -> AsyncIterator["RequestOutput"]:
        return self

    async def __anext__(self) -> "RequestOutput":
        if self.finished:
            raise StopAsyncIteration
        for _ in range(self._llm.tokens_per_output):
            await asyncio.sleep(self._llm.seconds)
            if self._llm._executor.is_dead:
                raise RuntimeError("Executor worker died")
            self._advance()
            if self.finished:
                break
        return self

    def _advance(self) -> None:
        (answer,), params = self.outputs, self._params
        token = next_token([*self.prompt_token_ids, *answer.token_ids])
        stops = params.stop_token_ids or []
        if len(answer.token_ids) < (params.min_tokens or 0) and (token in stops or token == params.end_id):
            token = 3 + 33
        answer.token_ids.append(token)
        if params.logprobs:
            likeliest = {200 + rank: Logprob(-float(rank), rank) for rank in range(1, params.logprobs + 1)}
            answer.logprobs.append({**likeliest, **({} if self._llm.omits_chosen else {token: Logprob(-9.0, 100)})})
        if token in stops:
            answer.finish_reason, answer.stop_reason = "stop", token
            if not params.include_stop_str_in_output:
                answer.token_ids = answer.token_ids[:-1]
        elif token == params.end_id and not params.ignore_eos:
            answer.finish_reason = "stop"
        elif len(answer.token_ids) == params.max_tokens:
            answer.finish_reason = "length"
        else:
            answer.finish_reason = self._llm.finish_reason
        self.finished = answer.finish_reason is not None


class LLM:
    """Runs requests token by token. A test may change the attributes below while it runs."""

    latest: "LLM"

    def __init__(self, model: str, **arguments: Any) -> None:
        known = {
            "dtype",
            "revision",
            "tensor_parallel_size",
            "pipeline_parallel_size",
            "kv_cache_config",
            "max_batch_size",
            "max_seq_len",
            "max_num_tokens",
            "enable_chunked_prefill",
            "guided_decoding_backend",
        }
        if unknown := arguments.keys() - known - {"backend"}:
            raise ValueError(f"LLM got invalid argument: {min(unknown)}")
        _assert_no_loop()
        if not isinstance(arguments.get("kv_cache_config", KvCacheConfig()), KvCacheConfig):
            raise ValueError("kv_cache_config must be a KvCacheConfig")
        LLM.latest = self
        self.model, self.arguments = model, arguments
        self.requests: list[tuple[Any, SamplingParams, Any]] = []
        self.aborted: list[RequestOutput] = []
        self.tokens_per_output = 1
        self.seconds = 0.0
        self.num_cached_tokens = 0
        self.finish_reason: str | None = None
        self.omits_chosen = self.is_shut_down = False
        self._executor: Any = types.SimpleNamespace(is_dead=False)
        self._executor.is_shutdown = lambda: self._executor.is_dead

    def generate_async(
        self,
        inputs: Any,
        sampling_params: SamplingParams | None = None,
        lora_request: LoRARequest | None = None,
        prompt_adapter_request: None = None,
        streaming: bool = False,
    ) -> RequestOutput:
        """A plain function."""
        if self._executor.is_dead:
            raise RuntimeError("LLM is shutting down")
        assert streaming and sampling_params is not None
        prompt = inputs["prompt_token_ids"]
        assert type(prompt) is list and all(type(token) is int for token in prompt)
        if sampling_params.guided_decoding and not self.arguments.get("guided_decoding_backend"):
            raise ValueError("guided_decoding_backend is not set")
        limit = self.arguments.get("max_num_tokens", LONGEST_DEFAULT_BATCH)
        if not self.arguments.get("enable_chunked_prefill") and len(prompt) > limit:
            raise ValueError(f"The sum of prompt length should not exceed max_num_tokens ({limit})")
        if len(prompt) + sampling_params.max_tokens > self.arguments["max_seq_len"]:
            raise ValueError("max_tokens should not exceed max_seq_len")
        self.requests.append((inputs, sampling_params, lora_request))
        return RequestOutput(self, list(prompt), sampling_params)

    def shutdown(self) -> None:
        _assert_no_loop()
        self.is_shut_down = True


@dataclass
class KvCacheConfig:
    free_gpu_memory_fraction: float = 0.9
    dtype: str = "auto"


def update_llm_args_with_extra_dict(llm_args: dict[str, Any], llm_args_dict: dict[str, Any]) -> dict[str, Any]:
    """Make classes of nested members."""
    if "kv_cache_config" in llm_args_dict:
        llm_args_dict = {**llm_args_dict, "kv_cache_config": KvCacheConfig(**llm_args_dict["kv_cache_config"])}
    return {**llm_args, **llm_args_dict}


def _assert_no_loop() -> None:
    """Starting and stopping take seconds, and would hold up an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise AssertionError("an event loop runs in this thread")


def install(patch: pytest.MonkeyPatch) -> None:
    """Make `import tensorrt_llm` return the stand-in."""
    names: dict[str, dict[str, Any]] = {
        "tensorrt_llm": {"LLM": LLM, "SamplingParams": SamplingParams},
        "tensorrt_llm.llmapi": {},
        "tensorrt_llm.llmapi.llm_utils": {"update_llm_args_with_extra_dict": update_llm_args_with_extra_dict},
        "tensorrt_llm.sampling_params": {"GuidedDecodingParams": GuidedDecodingParams},
        "tensorrt_llm.executor": {"LoRARequest": LoRARequest},
    }
    for name, members in names.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        patch.setitem(sys.modules, name, module)
