"""The `config.pbtxt` of a text-generation model behind the backend `llm`."""

import time
from collections.abc import Sequence

from builders import config_pbtxt
from builders.checkpoint import Checkpoint
from builders.errors import RecipeError
from builders.recipe import Recipe


def context_length(recipe: Recipe, checkpoint: Checkpoint) -> int:
    """Return the tokens of prompt and answer together. Raises RecipeError if the recipe wants more than were trained.

    Raises SourceUnavailable if the checkpoint does not say for how many it was trained.
    """
    trained = checkpoint.context_length()
    if recipe.context_length is not None and recipe.context_length > trained:
        raise RecipeError(f"context_length {recipe.context_length} is more than the model was trained for: {trained}.")
    return recipe.context_length or trained


def render(
    recipe: Recipe,
    checkpoint: Checkpoint,
    *,
    engine: str,
    precision: str,
    supports_images: bool,
    threads: int | None = None,
    instance_kind: str | None = None,
    gpus: Sequence[int] = (),
) -> str:
    """Return `config.pbtxt` of a model on the engine `engine`, with the parameters of docs/architecture.md.

    Raises RecipeError and SourceUnavailable as `context_length` does.
    """
    template = checkpoint.chat_template()
    return config_pbtxt.render(
        recipe.name,
        "llm",
        config_pbtxt.TEXT_GENERATION_INPUTS,
        config_pbtxt.TEXT_GENERATION_OUTPUTS,
        {
            "served_name": recipe.served_name or recipe.name,
            "operations": ["chat", "complete"] if template is not None else ["complete"],
            "signature": "vllm",
            "modalities": ["text", "image"] if supports_images else ["text"],
            "context_length": context_length(recipe, checkpoint),
            "chat_template": template,
            "special_tokens": checkpoint.special_tokens(),
            "control_tokens": checkpoint.control_tokens(),
            "special_tokens_in_content": recipe.special_tokens_in_content,
            "owned_by": recipe.owned_by or owner(recipe.source),
            "created": int(time.time()),
            "tool_call_parser": recipe.tool_call_parser,
            "reasoning_parser": recipe.reasoning_parser,
            "engine": engine,
            "precision": precision,
            "sampling_defaults": checkpoint.sampling_defaults() | recipe.sampling.model_dump(exclude_none=True),
            "max_rows": recipe.max_rows,
            "max_waiting": recipe.max_waiting,
            "threads": threads,
        },
        decoupled=True,
        instance_kind=instance_kind,
        gpus=gpus,
    )


def owner(source: str) -> str:
    """Return the owner in a Hugging Face id, `local` for other sources."""
    return source.split("/")[0] if source.count("/") == 1 and source[0] not in "./~" else "local"
