"""Render the `config.pbtxt` of an embedding model, and of the model that holds its network where that is a plan."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from builders import config_pbtxt
from builders.config_pbtxt import FP32, INT32, INT64, TensorConfig
from builders.embedding.family import EmbeddingRecipe
from builders.embedding.onnx_export import INPUTS, OUTPUT
from builders.embedding.sentence_model import SentenceModel
from builders.engine_targets import CUDA_PARAMETERS
from builders.errors import RecipeError
from builders.recipe import Recipe
from builders.tensorrt_plan import Profile

GPU_BATCH_TOKENS = 16_384
"""Most tokens of a batch on a GPU, padding included."""

USUAL_TOKENS = 64
USUAL_TEXTS = 16
"""Sizes of a batch for which TensorRT chooses the fastest kernels."""


@dataclass(frozen=True, slots=True)
class Network:
    """The facts that an exported network states about itself."""

    dimensions: int
    vocabulary: int
    """Number of token ids."""


def encoder_name(recipe: Recipe) -> str:
    """Return the name of the Triton model that holds the network."""
    return f"{recipe.name}-encoder"


def render_model(recipe: EmbeddingRecipe, model: SentenceModel, context_length: int, network: Network) -> str:
    """Return the `config.pbtxt` of the embedding model. Raises RecipeError if `matryoshka` does not suit the model."""
    owner = recipe.source.split("/")[0] if recipe.source.count("/") == 1 and recipe.source[0] not in "./~" else "local"
    if isinstance(recipe.matryoshka, tuple) and max(recipe.matryoshka) > network.dimensions:
        raise RecipeError(f"matryoshka names widths above the model's own, which is {network.dimensions}.")
    on_gpu, plan = recipe.device == "cuda", recipe.target == "tensorrt"
    parameters: dict[str, object] = {
        "served_name": recipe.served_name or recipe.name,
        "operations": ["embed"],
        "signature": "embedding",
        "context_length": context_length,
        "dimensions": network.dimensions,
        "matryoshka": recipe.matryoshka or None,
        "normalized": model.normalized,
        "prompts": model.prompts or None,
        "default_prompt": model.default_prompt,
        "lowercase": model.lowercase,
        "truncate_prompt_tokens": recipe.truncate_prompt_tokens,
        "owned_by": recipe.owned_by or owner,
        "created": int(time.time()),
        "engine": "tensorrt" if plan else "onnxruntime",
        "precision": recipe.precision,
        "max_waiting": max(recipe.max_waiting, 8192),
        "threads": recipe.threads,
    }
    if on_gpu:
        parameters |= {"max_batch_tokens": max(GPU_BATCH_TOKENS, context_length), "max_batch_texts": recipe.max_rows}
    if plan:
        parameters |= {"encoder": encoder_name(recipe), "vocab_size": network.vocabulary}
    elif on_gpu:
        parameters["arena_extend_strategy"] = CUDA_PARAMETERS["arena_extend_strategy"]
    return config_pbtxt.render(
        recipe.name,
        "embedding",
        config_pbtxt.EMBEDDING_INPUTS,
        config_pbtxt.EMBEDDING_OUTPUTS,
        parameters,
        decoupled=True,
        # The model runs the ONNX file itself. It only calls the model of a plan, which has a GPU of its own.
        instance_kind="KIND_GPU" if on_gpu and not plan else None,
    )


def render_encoder(recipe: EmbeddingRecipe, network: Network) -> str:
    """Return the `config.pbtxt` of the plan, whose batches the embedding model makes."""
    ids, lengths = INPUTS
    return config_pbtxt.render(
        encoder_name(recipe),
        "tensorrt",
        (TensorConfig(ids, INT64, (-1,)), TensorConfig(lengths, INT32, (1,), reshape=())),
        (TensorConfig(OUTPUT, FP32, (network.dimensions,)),),
        {"component": recipe.name},
        decoupled=False,
        max_batch_size=recipe.max_rows,
        instance_kind="KIND_GPU",
        platform="tensorrt_plan",
    )


def plan_profile(recipe: EmbeddingRecipe, context_length: int) -> Profile:
    """Return the shapes of the network's inputs, from one text of one token to a batch that fills the context."""
    rows, usual_rows = recipe.max_rows, min(USUAL_TEXTS, recipe.max_rows)
    ids, lengths = INPUTS
    return {
        ids: ((1, 1), (usual_rows, min(USUAL_TOKENS, context_length)), (rows, context_length)),
        lengths: ((1,), (usual_rows,), (rows,)),
    }


def plan_examples(recipe: EmbeddingRecipe, context_length: int, network: Network) -> Iterator[dict[str, Any]]:
    """Yield batches of random token ids: one text, and two of different lengths."""
    generator = np.random.default_rng(0)
    ids, lengths = INPUTS
    for counts in ([min(5, context_length)], [min(9, context_length), 1][: recipe.max_rows]):
        rows = np.zeros((len(counts), max(counts)), np.int64)
        for row, count in zip(rows, counts, strict=True):
            row[:count] = generator.integers(0, network.vocabulary, count)
        yield {ids: rows, lengths: np.array(counts, np.int32)}
