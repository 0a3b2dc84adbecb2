"""The family `speech`: voices that `backends/speech` serves."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from builders.family import REVISION, Builder, Family, Option
from builders.recipe import DEFAULT_SPEECH_RECIPE, Precision, Recipe


class SpeechRecipe(Recipe):
    """A recipe of a model that speaks."""

    precision: Precision = "int8"
    default_voice: str | None = None
    """Voice of requests that name none. Default: `heart` or `af_heart` where there is one, else the first."""
    phonemizer: Literal["hibari", "espeak"] = "hibari"
    """The phonemizer. `espeak` calls the program espeak-ng, which must be installed beside Triton."""
    max_characters: Annotated[int, Field(ge=1)] = 100_000
    """Most characters of one request."""


def _load_builder() -> Builder:
    from builders.speech.builder import SpeechBuilder

    return SpeechBuilder()


def _summary(figures: Mapping[str, Any]) -> str:
    number, difference = figures["voices"], figures["difference_max"]
    voices = f"{number} voices" if number > 1 else "One voice"
    if difference < 1e-3:
        return f"{voices}; against its source: largest difference of a sample {difference:.2g}."
    return f"{voices}; against its source: correlation of the spectra {figures['similarity_min']:.3f} at least."


FAMILY = Family(
    name="speech",
    command="speech",
    help="Build a model that speaks (hibari, Kokoro) from its ONNX files and voices, and verify what it says.",
    source_help="Hugging Face id, local folder, packaged:hibari or packaged:kokoro-82m. Default: packaged:hibari.",
    options=(
        Option("precision", "int8 or fp32."),
        REVISION,
        Option("default_voice", "Voice of requests that name none."),
        Option("phonemizer", "hibari, or espeak, which calls the program espeak-ng."),
        Option("max_characters", "Most characters of one request.", int),
        Option("max_rows", "Requests that are spoken side by side.", int),
    ),
    load_builder=_load_builder,
    summary=_summary,
    default_recipe=DEFAULT_SPEECH_RECIPE,
    recipe=SpeechRecipe,
)
