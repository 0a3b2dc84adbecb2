"""A stand-in for vLLM 0.32, with the names that the adapter uses and the refusals that the real one has.

The next token depends on all tokens before it, so any mistake in the prompt changes the answer.
"""

import asyncio
import math
import sys
import types
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest

VOCAB_SIZE = 259
EOS = 1


class VLLMClientError(Exception):
    """Not a `ValueError`."""


class VLLMValidationError(VLLMClientError):
    def __init__(self, message: str, *, parameter: str | None = None, value: Any = None) -> None:
        super().__init__(message)
        self.parameter, self.value = parameter, value

    def __str__(self) -> str:
        return f"{super().__str__()} (parameter={self.parameter}, value={self.value})"


class EngineDeadError(Exception):
    pass


class RequestOutputKind(Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class StructuredOutputsParams:
    json: Any = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in vars(self).values()) != 1:
            raise VLLMValidationError("exactly one kind of structured outputs constraint must be used")
        if self.json is not None and not isinstance(self.json, str | dict):
            raise TypeError("json must be a string or an object")


@dataclass
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    structured_outputs: StructuredOutputsParams | None = None
    logit_bias: dict[int, float] | None = None

    def __post_init__(self) -> None:
        checks = {
            "temperature": math.isfinite(self.temperature) and 0 <= self.temperature <= 2,
            "top_p": 0 < self.top_p <= 1,
            "max_tokens": self.max_tokens is None or self.max_tokens >= 1,
            "min_tokens": self.max_tokens is None or 0 <= self.min_tokens <= self.max_tokens,
            "stop": not self.stop or self.detokenize,
            "repetition_penalty": math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0,
        }
        for name, holds in checks.items():
            if not holds:
                raise VLLMValidationError(f"{name} is out of range.", parameter=name, value=getattr(self, name))
        assert self.stop_token_ids is None or isinstance(self.stop_token_ids, list)
        if self.seed == -1:
            self.seed = None


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass(frozen=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""


@dataclass
class AsyncEngineArgs:
    model: str
    revision: str | None = None
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    max_model_len: int = 1000
    max_num_seqs: int = 256
    max_logprobs: int = 20
    structured_outputs_config: dict[str, Any] = field(default_factory=lambda: {"backend": "auto"})
    generation_config: str = "auto"
    disable_log_stats: bool = False
    kv_cache_memory_bytes: int | None = None
    enable_lora: bool = False
    max_loras: int = 1


class StatLoggerBase:
    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        raise NotImplementedError


class AsyncLLM:
    """Runs requests token by token. A test may change the attributes below while it runs."""

    latest: "AsyncLLM"

    def __init__(self, args: AsyncEngineArgs, stat_loggers: list[Any]) -> None:
        AsyncLLM.latest = self
        asyncio.get_running_loop()  # else the task that reads outputs would not start
        self.args = args
        self.model_config = types.SimpleNamespace(max_model_len=args.max_model_len, get_vocab_size=lambda: VOCAB_SIZE)
        self.vllm_config = types.SimpleNamespace(
            structured_outputs_config=types.SimpleNamespace(**args.structured_outputs_config)
        )
        self.errored = self.is_shut_down = False
        self.requests: dict[str, tuple[Any, SamplingParams, Any]] = {}
        self.aborted: list[str] = []
        self.tokens_per_output = 1
        self.seconds = 0.0
        self.num_cached_tokens = 0
        self.num_expanded_tokens = 0
        self.finish_reason: str | None = None
        self._running: set[str] = set()
        self._loggers = [factory(self.vllm_config, 0) for factory in stat_loggers]

    @classmethod
    def from_engine_args(cls, engine_args: AsyncEngineArgs, stat_loggers: list[Any] | None = None) -> "AsyncLLM":
        return cls(engine_args, stat_loggers or [])

    async def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        lora_request: LoRARequest | None = None,
        priority: int = 0,
    ) -> AsyncGenerator[Any, None]:
        if self.errored:
            raise EngineDeadError("EngineCore encountered an issue.")
        assert request_id not in self.requests, "request ids must be unique"
        assert type(prompt["prompt_token_ids"]) is list and all(type(t) is int for t in prompt["prompt_token_ids"])
        assert sampling_params.output_kind is RequestOutputKind.DELTA and not sampling_params.detokenize
        if lora_request and not self.args.enable_lora:
            raise VLLMValidationError("LoRA is not enabled")
        self.requests[request_id] = prompt, sampling_params, lora_request
        tokens = [*prompt["prompt_token_ids"], *([7] * self.num_expanded_tokens)]
        if len(tokens) > self.args.max_model_len:
            raise VLLMValidationError(
                f"The decoder prompt (length {len(tokens)}) is longer than the maximum model length of "
                f"{self.args.max_model_len}. Make sure that it is shorter."
            )
        self._running.add(request_id)
        try:
            async for output in self._outputs(tokens, sampling_params):
                self._record()
                yield output
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted.append(request_id)
            raise
        finally:
            self._running.discard(request_id)

    async def _outputs(self, tokens: list[int], params: SamplingParams) -> AsyncGenerator[Any, None]:
        assert params.max_tokens is not None
        num_prompt, prompt_logprobs = len(tokens), None
        if params.prompt_logprobs is not None:
            prompt_logprobs = [None, *(self._logprobs(t, params.prompt_logprobs) for t in tokens[1:num_prompt])]
        room = min(params.max_tokens, self.args.max_model_len - num_prompt)
        new: list[int] = []
        reason = None
        while reason is None:
            await asyncio.sleep(self.seconds)
            if self.errored:
                raise EngineDeadError("EngineCore encountered an issue.")
            token = next_token(tokens)
            count = len(tokens) - num_prompt
            if count < params.min_tokens and (token in (params.stop_token_ids or []) or token == EOS):
                token = 3 + 33
            tokens.append(token)
            new.append(token)
            ends = {*(params.stop_token_ids or []), *(() if params.ignore_eos else (EOS,))}
            reason = "stop" if token in ends else "length" if count + 1 == room else self.finish_reason
            if reason or len(new) == self.tokens_per_output:
                logprobs = None
                if params.logprobs is not None:
                    logprobs = [self._logprobs(t, params.logprobs) for t in new]
                answer = types.SimpleNamespace(index=0, token_ids=new, finish_reason=reason, logprobs=logprobs)
                yield types.SimpleNamespace(
                    prompt_token_ids=tokens[:num_prompt],
                    outputs=[answer],
                    finished=reason is not None,
                    prompt_logprobs=prompt_logprobs,
                    num_cached_tokens=self.num_cached_tokens,
                )
                new, prompt_logprobs = [], None

    def shutdown(self, timeout: float | None = None) -> None:
        assert not self._running, "requests were still running"
        self.is_shut_down = True

    def _record(self) -> None:
        waiting = max(0, len(self._running) - self.args.max_num_seqs)
        scheduler = types.SimpleNamespace(num_waiting_reqs=waiting, kv_cache_usage=0.25)
        for logger in self._loggers:
            logger.record(
                scheduler_stats=scheduler,
                iteration_stats=types.SimpleNamespace(num_preempted_reqs=0),
                mm_cache_stats=None,
                engine_idx=0,
            )

    @staticmethod
    def _logprobs(token: int, count: int) -> dict[int, Logprob]:
        """The likeliest tokens come first, and the position's own wherever its rank is."""
        likeliest = {200 + rank: Logprob(-float(rank), rank) for rank in range(1, count + 1)}
        return {**likeliest, token: Logprob(-math.inf, 100)}


def next_token(tokens: list[int]) -> int:
    """Return a printable character that depends on all tokens before."""
    return 3 + 33 + sum((number + 1) * (token + 7) for number, token in enumerate(tokens)) % 60


def install(patch: pytest.MonkeyPatch) -> None:
    """Make `import vllm` return the stand-in."""
    names: dict[str, dict[str, Any]] = {
        "vllm": {"SamplingParams": SamplingParams, "AsyncEngineArgs": AsyncEngineArgs},
        "vllm.sampling_params": {
            "RequestOutputKind": RequestOutputKind,
            "StructuredOutputsParams": StructuredOutputsParams,
        },
        "vllm.exceptions": {"VLLMClientError": VLLMClientError},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
        "vllm.v1.metrics": {},
        "vllm.v1.metrics.loggers": {"StatLoggerBase": StatLoggerBase},
    }
    for name, members in names.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        patch.setitem(sys.modules, name, module)
