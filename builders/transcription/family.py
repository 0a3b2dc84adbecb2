"""The family `transcription`: Whisper, served by `backends/transcription`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from builders.family import REVISION, Builder, Family, Option
from builders.recipe import DEFAULT_TRANSCRIPTION_RECIPE, Recipe

Task = Literal["transcribe", "translate"]


class TranscriptionRecipe(Recipe):
    """A recipe of a Whisper."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Kind of device that serves the model. For `cuda` the default precision is fp16."""
    tasks: tuple[Task, ...] | None = None
    """The tasks that clients may ask for. Default: both; `transcribe` alone for a model that knows English alone."""
    max_seconds: Annotated[int, Field(ge=30, le=86_400)] = 600
    """Longest recording of one request, in seconds. The gateway sends a longer one in parts."""

    @model_validator(mode="before")
    @classmethod
    def _set_precision_of_device(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("device") == "cuda":
            return {"precision": "fp16"} | values
        return values


def _load_builder() -> Builder:
    from builders.transcription.builder import TranscriptionBuilder

    return TranscriptionBuilder()


def _summary(figures: Mapping[str, Any]) -> str:
    text = "the same text" if figures["identical_texts"] else f"{figures['word_error']:.1%} other words"
    return (
        f"Against transformers: {text} over {figures['tokens']} tokens, divergence {figures['divergence']:.2g} nats, "
        f"relative error of the encoder {figures['encoder_error']:.2g}."
    )


FAMILY = Family(
    name="transcription",
    command="transcription",
    help="Build a transcription model from a Whisper, and verify its text against transformers'.",
    source_help="Hugging Face id, local folder, or packaged:NAME. Default: the packaged default model.",
    options=(
        Option("precision", "int8 (the default) or fp32; for cuda fp16 (its default) or fp32."),
        Option("device", "cpu or cuda."),
        REVISION,
        Option("max_rows", "Windows of 30 s that are decoded side by side.", int),
        Option("max_seconds", "Longest recording of one request, in seconds.", int),
    ),
    load_builder=_load_builder,
    summary=_summary,
    default_recipe=DEFAULT_TRANSCRIPTION_RECIPE,
    recipe=TranscriptionRecipe,
)
