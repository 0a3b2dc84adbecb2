"""The tensors that tell TensorRT-LLM how to sample tokens, and which structure the answer must have."""

import json
import re
import secrets
from typing import Any

from gateway.model_card.card import ModelCard
from gateway.operations.text import Sampling, StructuredOutput
from gateway.signatures import third_party
from gateway.triton.tensors import Tensor, float32_tensor, int32_tensor, string_tensor, uint64_tensor


def sampling_tensors(sampling: Sampling, has: frozenset[str]) -> list[Tensor]:
    """Return the tensors that say how the next token is sampled.

    The runtime's own defaults are not those of any OpenAI server: without `top_k` and `top_p` it takes the likeliest
    token whatever the temperature, and without a seed it takes the same one, 0, for every request
    (cpp/include/tensorrt_llm/layers/defaultDecodingParams.h).
    """
    if sampling.temperature == 0:
        return (
            [int32_tensor("top_k", 1), float32_tensor("temperature", 1.0)]
            if "top_k" in has
            else [float32_tensor("temperature", 0.0)]
        )
    tensors = []
    if sampling.temperature is not None:
        tensors.append(float32_tensor("temperature", sampling.temperature))
    if sampling.top_k is not None:
        tensors.append(int32_tensor("top_k", max(sampling.top_k, 0)))
    if sampling.top_p is not None:
        tensors.append(float32_tensor("top_p", sampling.top_p))
    elif (tensors and not (sampling.top_k or 0) > 0) or sampling.n > 1:
        tensors.append(float32_tensor("top_p", 1.0))
    if sampling.seed is not None:
        tensors.append(uint64_tensor("seed", sampling.seed % 2**64))
    elif tensors:
        tensors.append(uint64_tensor("seed", secrets.randbits(63)))
    return tensors


def guided_decoding_tensors(structure: StructuredOutput, card: ModelCard) -> list[Tensor]:
    """Return the tensors of a structured output. Raises `UnsupportedOption` where the model has none for it.

    https://github.com/triton-inference-server/tensorrtllm_backend/blob/main/docs/guided_decoding.md
    """
    if "guided_decoding_guide" not in card.config.inputs:
        third_party.reject_unsupported_options(Sampling(structured_outputs=structure), ())
    guide: Any = structure.value
    match structure.kind:
        case "json" if guide is True:
            return [string_tensor("guided_decoding_guide_type", "json")]
        case "json":
            kind, guide = "json_schema", json.dumps(guide)
        case "choice":
            kind, guide = "regex", "|".join(re.sub(r"([\\.^$|?*+()\[\]{}])", r"\\\1", word) for word in guide)
        case "regex":
            kind = "regex"
        case _:
            kind = "ebnf_grammar"
    return [string_tensor("guided_decoding_guide_type", kind), string_tensor("guided_decoding_guide", guide)]
