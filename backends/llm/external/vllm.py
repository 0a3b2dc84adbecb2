"""The engine `vllm`: vLLM's `AsyncLLM`, which schedules, batches, caches prefixes and enforces structures by itself.

The version folder holds `model.json`, the engine arguments as Triton's own vLLM backend reads them, and optionally
`multi_lora.json`. vLLM is imported when the model is loaded. Tested with vLLM 0.32.
"""

import dataclasses
import itertools
import json
import logging
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from backends.llm.engine import Generation, Logprob, Logprobs
from backends.llm.external.answer_text import stop_token_ids
from backends.llm.external.checkpoint import (
    read_adapters,
    read_engine_arguments,
    read_special_tokens,
)
from backends.llm.external.descendants import descendants, kill_with_this_process
from backends.llm.external.engine import ExternalEngine
from backends.llm.external.process import end_process_soon, prepare_process
from backends.llm.external.runtime import AnswerStep, logprobs_entry
from backends.llm.external.stats import VllmStats
from backends.llm.model_files import read_json_object
from backends.llm.model_loader import LoadedModel
from backends.llm.options import Options
from backends.llm.sampling_params import MAX_LOGPROBS, StructuredOutputsParams
from backends.serving.errors import ContextLengthExceeded, EngineFailed, GenerationError, InvalidValue

_log = logging.getLogger(__name__)
_GUIDANCE = "guidance"
"""vLLM's name for llguidance, with which it enforces the grammars of this backend."""
_SEEDS = 2**63
"""vLLM takes seeds below this; -1 stands for none."""


class VllmRuntime:
    """`backends.llm.external.runtime.Runtime` on an `AsyncLLM`."""

    def __init__(
        self, arguments: Mapping[str, Any], eos: frozenset[int], adapters: Mapping[str, str], stats: VllmStats
    ) -> None:
        """Start vLLM's processes, in a running event loop. `eos` end an answer, `adapters` are folders by name.

        Raises whatever vLLM raises for its arguments and for the checkpoint.
        """
        others = descendants()
        import vllm
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.metrics.loggers import StatLoggerBase

        class StatsReader(StatLoggerBase):  # type: ignore[misc]
            """Copies vLLM's figures after each of its steps."""

            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
                pass

            def record(
                self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
            ) -> None:
                """Called in the event loop."""
                if iteration_stats is not None:
                    stats.preemptions += iteration_stats.num_preempted_reqs
                if scheduler_stats is not None:
                    stats.num_queued = scheduler_stats.num_waiting_reqs
                    stats.kv_cache_usage = scheduler_stats.kv_cache_usage
                    stats.update_rows()

            def log_engine_initialized(self) -> None:
                """Nothing is logged."""

        self._params = partial(vllm.SamplingParams, output_kind=RequestOutputKind.DELTA, detokenize=False)
        self._structure = StructuredOutputsParams
        self._client_errors = _client_errors()
        self._llm: Any = AsyncLLM.from_engine_args(vllm.AsyncEngineArgs(**arguments), stat_loggers=[StatsReader])
        config = self._llm.model_config
        self.context_length: int = config.max_model_len
        self.vocab_size: int = config.get_vocab_size()
        self._enforces_grammars = self._llm.vllm_config.structured_outputs_config.backend == _GUIDANCE
        self._adapters = {
            name: _lora_request(name, number, folder) for number, (name, folder) in enumerate(adapters.items(), 1)
        }
        self._eos = eos
        self._ids = itertools.count()
        self._watcher = kill_with_this_process(descendants() - others)

    @property
    def has_died(self) -> bool:
        """True once vLLM's engine process has died, or its output can no longer be read."""
        return self._llm is None or bool(self._llm.errored)

    def generate(self, generation: Generation, index: int) -> AsyncGenerator[AnswerStep, None]:
        """Return the steps of answer `index`. Raises `InvalidValue` for parameters that vLLM refuses."""
        try:
            params = self._params(**self._sampling(generation, index))
        except self._client_errors as error:
            raise _refusal(error, "sampling_parameters") from error
        return self._steps(generation, params)

    async def close(self) -> None:
        """Stop vLLM's processes."""
        self._llm.shutdown()
        self._llm = None  # else it would be shut down once more when Python ends, without its modules
        self._watcher.communicate()

    async def _steps(self, generation: Generation, params: Any) -> AsyncGenerator[AnswerStep, None]:
        prompt: dict[str, Any] = {"prompt_token_ids": generation.prompt.tolist()}
        if generation.image_inputs:
            prompt["multi_modal_data"] = {"image": list(generation.image_inputs.features)}
        name = generation.sampling.lora_name
        outputs = self._llm.generate(
            prompt, params, f"{next(self._ids)}", lora_request=self._adapters[name] if name else None
        )
        first = True
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    yield self._step(generation, output, first)
                    first = False
        except self._client_errors as error:
            raise _refusal(error, "image" if generation.image_inputs else "sampling_parameters") from error

    def _step(self, generation: Generation, output: Any, first: bool) -> AnswerStep:
        (answer,) = output.outputs
        step = AnswerStep(
            tuple(answer.token_ids), _finish_reason(answer.finish_reason), _logprobs(answer.token_ids, answer.logprobs)
        )
        if not first:
            return step
        tokens = output.prompt_token_ids or generation.prompt.tolist()
        return dataclasses.replace(
            step,
            prompt_logprobs=_prompt_logprobs(tokens, output.prompt_logprobs),
            num_prompt_tokens=len(tokens),
            num_cached_tokens=output.num_cached_tokens or 0,
        )

    def _sampling(self, generation: Generation, index: int) -> dict[str, Any]:
        """Return vLLM's `SamplingParams` of an answer, without those that all answers share."""
        sampling = generation.sampling
        room = self.context_length - len(generation.prompt)
        structure = sampling.structured_outputs
        return {
            # vLLM takes no 0, which stands for the likeliest token here.
            "temperature": sampling.temperature if sampling.top_p else 0.0,
            "top_p": sampling.top_p or 1.0,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "seed": None if sampling.seed is None else (sampling.seed + index) % _SEEDS,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "repetition_penalty": sampling.repetition_penalty,
            "max_tokens": max(1, room if sampling.max_tokens is None else min(room, sampling.max_tokens)),
            # A complete structure ends the answer, and vLLM would forbid the token that does.
            "min_tokens": 0 if structure else min(room, sampling.min_tokens),
            "ignore_eos": sampling.ignore_eos and structure is None,
            "stop_token_ids": sorted(stop_token_ids(generation, self._eos)),
            "logit_bias": dict(sampling.logit_bias) or None,
            "logprobs": sampling.logprobs,
            "prompt_logprobs": sampling.prompt_logprobs if index == 0 else None,
            "structured_outputs": self._structured_outputs(structure) if structure else None,
        }

    def _structured_outputs(self, structure: StructuredOutputsParams) -> Any:
        if self._enforces_grammars:
            # Imported here because only structures need llguidance.
            from backends.llm.structured_outputs.lark_text import to_lark

            return self._structure(grammar=to_lark(structure.kind, structure.text))
        text: Any = structure.text
        if structure.kind in ("json", "choice"):
            text = json.loads(text)
        return self._structure(**{structure.kind: {} if text is True else text})


async def start_runtime(
    arguments: Mapping[str, Any], eos: frozenset[int], adapters: Mapping[str, str], stats: VllmStats
) -> VllmRuntime:
    """Start vLLM; as the class. vLLM reads its outputs in the event loop in which it is started."""
    return VllmRuntime(arguments, eos, adapters, stats)


def load_engine(folder: Path, tokenizer: Tokenizer, options: Options) -> LoadedModel:
    """Start the engine from a folder. Raises `FileNotFoundError`, `ValueError`, or what vLLM raises."""
    special, adapters = read_special_tokens(folder), read_adapters(folder)
    path = folder / "model.json"
    arguments = engine_arguments(read_engine_arguments(path, read_json_object(path)), options, len(adapters))
    vision_processor = None
    if special.image is not None:
        # Imported here because only models that accept images need Pillow.
        from backends.llm.external.images import RawImageProcessor

        vision_processor = RawImageProcessor(tokenizer, special.image)
    prepare_process()
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # A forked process would inherit the locks that threads of this one hold.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    stats = VllmStats(max_rows=int(arguments["max_num_seqs"]))
    engine = ExternalEngine(
        partial(start_runtime, arguments, special.eos, adapters, stats),
        stats,
        tokenizer,
        special.eos,
        options.max_waiting,
        adapters=frozenset(adapters),
        on_death=end_process_soon,
    )
    return LoadedModel(engine, special.bos, special.eos, vision_processor)


def engine_arguments(arguments: Mapping[str, Any], options: Options, num_adapters: int = 0) -> dict[str, Any]:
    """Return the arguments of `model.json`, with the model's parameters for those that it leaves out."""
    defaults: dict[str, Any] = {
        "max_num_seqs": options.max_rows,
        "max_model_len": options.context_length,
        "kv_cache_memory_bytes": options.kv_memory,
        "max_logprobs": MAX_LOGPROBS,
        "structured_outputs_config": {"backend": _GUIDANCE},
        # Chat checkpoints recommend sampling parameters, which are the model's `sampling_defaults` already.
        "generation_config": "vllm",
        "disable_log_stats": True,
    }
    if num_adapters:
        defaults |= {"enable_lora": True, "max_loras": num_adapters}
    return {name: value for name, value in defaults.items() if value is not None} | dict(arguments)


def _client_errors() -> tuple[type[Exception], ...]:
    """Return the errors with which vLLM refuses a request."""
    try:
        from vllm.exceptions import VLLMClientError
    except ImportError:  # older releases have no class of their own
        return (ValueError,)
    return (ValueError, VLLMClientError)


def _refusal(error: Exception, name: str) -> GenerationError:
    """Return a refusal of vLLM in the terms of this backend. `name` is at fault where vLLM names nothing."""
    message = str(error.args[0] if error.args else error)  # the class adds the name and the value to its text
    if "longer than the maximum model length" in message:  # by the tokens of its images
        return ContextLengthExceeded(message, "text_input")
    return InvalidValue(f"{message.rstrip('.')}."[:500], getattr(error, "parameter", None) or name)


def _lora_request(name: str, number: int, folder: str) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(name, number, folder)


def _finish_reason(reason: str | None) -> str | None:
    """Return vLLM's reason. Raises `EngineFailed` for one that is a failure."""
    if reason in ("abort", "error"):
        raise EngineFailed(f"vLLM ended the answer with the reason {reason}.")
    return reason


def _logprobs(tokens: Iterable[int], positions: Any) -> tuple[Logprobs, ...]:
    if not positions:
        return ()
    return tuple(logprobs_entry(token, position) for token, position in zip(tokens, positions, strict=True))


def _prompt_logprobs(tokens: list[int], positions: Any) -> tuple[Logprobs, ...]:
    """Return an entry for each token of the prompt; vLLM has None for the first."""
    if not positions:
        return ()
    return tuple(
        logprobs_entry(token, position) if position else (Logprob(token, None, None),)
        for token, position in zip(tokens, positions, strict=True)
    )
