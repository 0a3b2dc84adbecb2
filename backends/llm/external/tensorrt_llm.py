"""The engine `llmapi`: TensorRT-LLM's LLM API (`tensorrt_llm.LLM`, from 1.2.1 on).

The version folder holds `model.yaml`, the arguments of `LLM` as NVIDIA's own `llmapi` model reads them, and optionally
`multi_lora.json`. TensorRT-LLM is imported when the model is loaded. It needs a GPU; it has been run against a stand-in
with its published names and rules alone.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from backends.llm.engine import Generation, Logprobs
from backends.llm.external.answer_text import stop_token_ids
from backends.llm.external.checkpoint import (
    read_adapters,
    read_engine_arguments,
    read_special_tokens,
    text_config,
)
from backends.llm.external.descendants import descendants, kill_with_this_process
from backends.llm.external.engine import ExternalEngine
from backends.llm.external.process import end_process_soon, prepare_process
from backends.llm.external.runtime import AnswerStep, logprobs_entry
from backends.llm.external.stats import ExternalStats
from backends.llm.external.xgrammar import to_guide
from backends.llm.model_files import read_json_object, read_yaml_object
from backends.llm.model_loader import LoadedModel
from backends.llm.options import Options
from backends.llm.sampling_params import SamplingParams, StructuredOutputsParams
from backends.serving.errors import ContextLengthExceeded, EngineFailed, InvalidValue, UnsupportedOption

_log = logging.getLogger(__name__)
_BACKEND = "guided_decoding_backend"
_LLGUIDANCE = "llguidance"
"""TensorRT-LLM's name for the library whose grammars this backend compiles; it takes them as Lark."""
_SEEDS = 2**64
_MPI_VARIABLES = ("OMPI_", "PMIX_", "PMI_")
"""Variables of a launcher that started Triton: MPI would take this process for one of the launcher's."""
_TRITON_SECTION = "triton_config"
"""A member of NVIDIA's model.yaml that is no argument of `LLM`."""


class LlmApiRuntime:
    """`backends.llm.external.runtime.Runtime` on an `LLM`."""

    def __init__(
        self, arguments: Mapping[str, Any], vocab_size: int, eos: frozenset[int], adapters: Mapping[str, str]
    ) -> None:
        """Start TensorRT-LLM. `arguments` hold `max_seq_len`; `eos` end an answer, `adapters` are folders by name.

        Raises whatever TensorRT-LLM raises for its arguments and for the checkpoint.
        """
        others = descendants()
        import tensorrt_llm
        from tensorrt_llm.llmapi.llm_utils import update_llm_args_with_extra_dict
        from tensorrt_llm.sampling_params import GuidedDecodingParams

        self.context_length = int(arguments["max_seq_len"])
        self.vocab_size = vocab_size
        self._guide = GuidedDecodingParams
        self._guide_backend = arguments.get(_BACKEND)
        self._params = tensorrt_llm.SamplingParams
        self._eos = eos
        self._adapters = {
            name: _lora_request(name, number, folder) for number, (name, folder) in enumerate(adapters.items(), 1)
        }
        # Without chunks, a prompt is one batch.
        chunked = arguments.get("enable_chunked_prefill")
        self._max_prompt_tokens = None if chunked else arguments.get("max_num_tokens")
        # It makes the classes of TensorRT-LLM of members such as kv_cache_config.
        self._llm = tensorrt_llm.LLM(**update_llm_args_with_extra_dict({}, dict(arguments)))
        self._watcher = kill_with_this_process(descendants() - others)

    @property
    def has_died(self) -> bool:
        """True once the executor has shut down by itself."""
        executor = getattr(self._llm, "_executor", None)
        return executor is None or bool(executor.is_shutdown())

    def generate(self, generation: Generation, index: int) -> AsyncGenerator[AnswerStep, None]:
        """Return the steps of answer `index`.

        Raises `InvalidValue` and `UnsupportedOption` for parameters that TensorRT-LLM refuses or cannot carry, and
        `ContextLengthExceeded` for a prompt that is longer than a batch.
        """
        count, most = len(generation.prompt), self._max_prompt_tokens
        if most is not None and count > most:
            raise ContextLengthExceeded(
                f"The prompt has {count} tokens; this model takes {most}, as it runs without chunked prefill.",
                "text_input",
            )
        try:
            params = self._params(**self._sampling(generation, index))
        except ValueError as error:
            raise InvalidValue(f"{str(error).rstrip('.')}."[:500], "sampling_parameters") from error
        return self._steps(generation, params)

    async def close(self) -> None:
        """Stop TensorRT-LLM and its processes."""
        await asyncio.get_running_loop().run_in_executor(None, self._llm.shutdown)
        self._watcher.communicate()

    async def _steps(self, generation: Generation, params: Any) -> AsyncGenerator[AnswerStep, None]:
        inputs: dict[str, Any] = {"prompt_token_ids": generation.prompt.tolist()}
        if generation.image_inputs:
            inputs["multi_modal_data"] = {"image": list(generation.image_inputs.features)}
        name = generation.sampling.lora_name
        try:
            # A plain function, which takes the running event loop for that of its results.
            result = self._llm.generate_async(
                inputs, sampling_params=params, lora_request=self._adapters[name] if name else None, streaming=True
            )
        except ValueError as error:  # the prompt, which may have grown by its images
            raise InvalidValue(f"{str(error).rstrip('.')}."[:500], "sampling_parameters") from error
        num_seen = 0
        try:
            async for _ in result:
                step = self._step(generation, result, num_seen)
                num_seen += len(step.token_ids)
                yield step
        finally:
            if not result.finished:
                result.abort()

    def _step(self, generation: Generation, result: Any, num_seen: int) -> AnswerStep:
        """Return the tokens behind the first `num_seen`: each result holds all tokens of the answer so far."""
        (answer,) = result.outputs
        tokens = tuple(answer.token_ids[num_seen:])
        logprobs: tuple[Logprobs, ...] = ()
        requested = generation.sampling.logprobs
        if requested is not None and tokens:
            # It takes no 0, so at least one other token is listed.
            entries = answer.logprobs[num_seen : num_seen + len(tokens)]
            logprobs = tuple(
                _limited(logprobs_entry(token, entry), requested) for token, entry in zip(tokens, entries, strict=True)
            )
        reason = _finish_reason(answer.finish_reason)
        if num_seen:
            return AnswerStep(tokens, reason, logprobs)
        return AnswerStep(
            tokens,
            reason,
            logprobs,
            num_prompt_tokens=len(result.prompt_token_ids),
            num_cached_tokens=int(getattr(result, "cached_tokens", 0) or 0),
        )

    def _sampling(self, generation: Generation, index: int) -> dict[str, Any]:
        """Return the `SamplingParams` of an answer. Raises `UnsupportedOption`."""
        sampling, structure = generation.sampling, generation.sampling.structured_outputs
        if sampling.prompt_logprobs is not None:
            raise UnsupportedOption(
                "TensorRT-LLM gives no log probabilities of the prompt's own tokens.", "prompt_logprobs"
            )
        room = self.context_length - len(generation.prompt)
        # The first is the end of the sequence for TensorRT-LLM, which knows one; the others are stop tokens.
        end, *other_ends = sorted(self._eos)
        stops = sorted(stop_token_ids(generation, frozenset(other_ends)))
        seed = secrets.randbelow(_SEEDS) if sampling.seed is None else sampling.seed + index
        return {
            "end_id": end,
            "pad_id": end,
            "max_tokens": max(1, room if sampling.max_tokens is None else min(room, sampling.max_tokens)),
            "min_tokens": 0 if structure else min(room, sampling.min_tokens),
            "ignore_eos": sampling.ignore_eos and structure is None,
            "stop_token_ids": stops or None,
            # Without it, stop tokens are cut off the tokens, and would not be counted.
            "include_stop_str_in_output": True,
            **_choice(sampling),
            # Without a seed, all requests would draw with the same.
            "seed": seed % _SEEDS,
            "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "logprobs": None if sampling.logprobs is None else max(1, sampling.logprobs),
            "embedding_bias": self._bias(sampling),
            "guided_decoding": self._guided_decoding(structure) if structure else None,
            "detokenize": False,
            "add_special_tokens": False,
        }

    def _bias(self, sampling: SamplingParams) -> Any:
        """Return the biases of all tokens, float32[vocabulary]; None if there are none."""
        if not sampling.logit_bias:
            return None
        import torch

        bias = torch.zeros(self.vocab_size, dtype=torch.float32)
        for token, value in sampling.logit_bias:
            bias[token] = value
        return bias

    def _guided_decoding(self, structure: StructuredOutputsParams) -> Any:
        if self._guide_backend != _LLGUIDANCE:
            return self._guide(**to_guide(structure))
        # Imported here because only structures need llguidance.
        from backends.llm.structured_outputs.lark_text import to_lark

        return self._guide(grammar=to_lark(structure.kind, structure.text))


async def start_runtime(
    arguments: Mapping[str, Any], vocab_size: int, eos: frozenset[int], adapters: Mapping[str, str]
) -> LlmApiRuntime:
    """Start TensorRT-LLM, in a thread without an event loop, as NVIDIA's own model does; as the class."""
    start = partial(LlmApiRuntime, arguments, vocab_size, eos, adapters)
    return await asyncio.get_running_loop().run_in_executor(None, start)


def load_engine(folder: Path, tokenizer: Tokenizer, options: Options) -> LoadedModel:
    """Start the engine from a folder. Raises `FileNotFoundError`, `ValueError`, or what TensorRT-LLM raises."""
    special, adapters = read_special_tokens(folder), read_adapters(folder)
    path = folder / "model.yaml"
    config = text_config(read_json_object(folder / "config.json"))
    arguments = engine_arguments(read_engine_arguments(path, read_yaml_object(path)), options, config)
    vision_processor = None
    if special.image is not None:
        # Imported here because only models that accept images need Pillow.
        from backends.llm.external.images import RawImageProcessor

        vision_processor = RawImageProcessor(tokenizer, special.image)
    for name in [name for name in os.environ if name.startswith(_MPI_VARIABLES)]:
        del os.environ[name]
    prepare_process()
    engine = ExternalEngine(
        partial(start_runtime, arguments, int(config["vocab_size"]), special.eos, adapters),
        ExternalStats(max_rows=int(arguments["max_batch_size"])),
        tokenizer,
        special.eos,
        options.max_waiting,
        structure_enforcement="engine" if arguments.get(_BACKEND) else "none",
        adapters=frozenset(adapters),
        on_death=end_process_soon,
    )
    return LoadedModel(engine, special.bos, special.eos, vision_processor)


def engine_arguments(arguments: Mapping[str, Any], options: Options, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `model.yaml`, with the model's parameters for those that it leaves out.

    `config` is that of the checkpoint. Raises `ValueError` if the length of the context is unknown.
    """
    context_length = options.context_length or config.get("max_position_embeddings")
    defaults: dict[str, Any] = {
        "max_batch_size": options.max_rows,
        "max_seq_len": context_length,
        "enable_chunked_prefill": True,
        _BACKEND: _LLGUIDANCE,
    }
    found = {**defaults, **{name: value for name, value in arguments.items() if name != _TRITON_SECTION}}
    if not isinstance(found["max_seq_len"], int):
        raise ValueError("Neither model.yaml nor config.json tells how long the context is: set context_length.")
    return found


def _choice(sampling: SamplingParams) -> dict[str, Any]:
    """Return how a token is chosen. Releases differ in what makes greedy, but not where all three are absent."""
    if not sampling.temperature or not sampling.top_p or sampling.top_k == 1:
        return {"temperature": None, "top_p": None, "top_k": None, "min_p": None}
    return {
        "temperature": sampling.temperature,
        # Always present: a temperature alone is greedy in some releases.
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or None,
        "min_p": sampling.min_p or None,
    }


def _finish_reason(reason: str | None) -> str | None:
    """Return the reason. Raises `EngineFailed` for one that is a failure."""
    if reason in ("timeout", "cancelled"):
        raise EngineFailed(f"TensorRT-LLM ended the answer with the reason {reason}.")
    return reason


def _limited(entry: Logprobs, count: int) -> Logprobs:
    """Return the own token of a position and the `count` likeliest tokens."""
    return (entry[0], *(other for other in entry[1:] if other.rank is not None and other.rank <= count))


def _lora_request(name: str, number: int, folder: str) -> Any:
    from tensorrt_llm.executor import LoRARequest

    return LoRARequest(name, number, folder)
