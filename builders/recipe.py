"""Recipes: the weights and options of a build, written in TOML or on the command line."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from builders.errors import RecipeError

RECIPES_FOLDER = Path(__file__).parent / "recipes"
"""The recipes that come with the project."""

DEFAULT_FAMILY = "llm"
"""Family of a recipe that names none."""

DEFAULT_LLM_RECIPE = "smollm2-135m-instruct"
"""Recipe that `tritonic build chat` builds by default."""

DEFAULT_EMBEDDING_RECIPE = "all-minilm-l6-v2"
"""Recipe that `tritonic build embedding` builds by default."""

DEFAULT_IMAGE_RECIPE = "shapes"
"""Recipe that `tritonic build image` builds by default."""

DEFAULT_VIDEO_RECIPE = "moving-shapes"
"""Recipe that `tritonic build video` builds by default."""

DEFAULT_TRANSCRIPTION_RECIPE = "whisper-base"
"""Recipe that `tritonic build transcription` builds by default."""

DEFAULT_SPEECH_RECIPE = "hibari"
"""Recipe that `tritonic build speech` builds by default."""

Precision = Literal["int4", "int8", "fp16", "fp32", "checkpoint"]
"""Number formats of weights; `checkpoint` leaves them as they are."""

TARGET_OPTIONS = ("precision", "quantization", "tolerance", "max_rows", "threads")
"""Fields of a recipe that are meant for its target."""

Target = Literal["onnx", "tensorrt", "tensorrt_llm", "llmapi", "vllm"]
# The parsers that the gateway has; a test compares the two.
ToolCallParser = Literal["hermes", "qwen", "qwen25", "llama3_json", "mistral", "pythonic"]
ReasoningParser = Literal["think", "deepseek_r1", "qwen3"]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Quantization(BaseModel):
    """Options of the quantisation to int8 or int4, which has one scale for each block of a row of a matrix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    block_size: Literal[16, 32, 64, 128, 256] = 32
    """Number of weights that share a scale."""
    accuracy_level: Literal[1, 2, 3, 4] = 4
    """Precision of the products: 1 is fp32, 4 is int8, which quantises activations too, per row and block."""
    symmetric: bool = True
    """Without a zero point per block."""
    method: Literal["default", "rtn", "k_quant"] = "default"
    """Algorithm that chooses the scales."""
    embedding_in_fp32: bool = False
    """Keep the embedding in fp32. int8 always does; int4 with zero points requires it."""
    head_in_int8: bool = False
    """Quantise the last matrix, which computes the logits, to int8 when the others are int4."""


class SamplingDefaults(BaseModel):
    """Sampling parameters for requests that set none. Default: those of the checkpoint's generation_config.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 means greedy decoding."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Sample from the likeliest tokens that together reach this probability."""
    top_k: Annotated[int, Field(ge=0)] | None = None
    """Sample from this many of the likeliest tokens; 0 means all."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Sample from tokens that have at least this share of the likeliest token's probability."""
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    """Above 1, tokens that have occurred become less likely."""


# Chosen by docs/decisions/0002-default-precision.md.
QUANTIZATIONS: dict[Precision, Quantization] = {
    "int8": Quantization(block_size=64, symmetric=False),
    "int4": Quantization(symmetric=False, method="k_quant", embedding_in_fp32=True, head_in_int8=True),
}

# In blocks of 32 all-MiniLM-L6-v2 is just within its tolerance.
EMBEDDING_QUANTIZATIONS: dict[Precision, Quantization] = {"int8": Quantization(block_size=32, symmetric=False)}


class Tolerance(BaseModel):
    """Largest allowed distance of the engine from the source model. `docs/models.md` explains the figures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    divergence: Annotated[float, Field(gt=0)]
    """Largest mean Kullback-Leibler divergence of the next token's distribution, in nats."""
    agreement: Annotated[float, Field(ge=0, le=1)]
    """Smallest share of positions with the same token, among those where the source's best token is at least twice as
    likely as the second."""


ImageSide = Annotated[int, Field(ge=8, le=16384)]
ImageSize = tuple[ImageSide, ImageSide]


class SizeOptions(BaseModel):
    """Sizes in pixels, limits and defaults of requests. Default: those of the checkpoint and its pipeline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sizes: Annotated[tuple[ImageSize, ...], Field(min_length=1)] | None = None
    """The only sizes, as width and height. Default: all sizes from `min_size` to `max_size`."""
    min_size: ImageSide | None = None
    """Smallest width and height."""
    max_size: ImageSide | None = None
    """Largest width and height."""
    default_size: ImageSize | None = None
    default_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    max_steps: Annotated[int, Field(ge=1, le=1000)] = 150
    default_guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    """Guidance scale. Up to 1 there is no guidance, which halves the work."""


class ImageOptions(SizeOptions):
    """Options of image requests."""

    max_images: Annotated[int, Field(ge=1, le=100)] = 10
    """Largest number of images of one request."""


class Recipe(BaseModel):
    """All options of a build. Two builds of the same recipe and source give the same model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default_quantizations: ClassVar[dict[Precision, Quantization]] = QUANTIZATIONS
    """By precision; precisions that are not named leave the weights uncompressed."""

    family: str = DEFAULT_FAMILY
    """Name of the builder family, see `builders.registry`."""
    name: ModelName
    """Folder of the model in the repository, which is also its name in Triton."""
    served_name: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Name that clients use. Default: `name`."""
    source: Annotated[str, Field(min_length=1)]
    """`packaged:<name>`, a local folder in Hugging Face's layout, or a Hugging Face id."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face id."""
    precision: Precision = "int8"
    """Number format of the weights. The families `embedding` and `diffusion` default to fp32, and text-generation
    models of targets other than `onnx` to that of the checkpoint."""
    target: Target = "onnx"
    """Engine format that the weights are compiled to."""
    context_length: Annotated[int, Field(ge=16)] | None = None
    """Tokens of prompt and answer together. Default and maximum: the context length of the training."""
    max_rows: Annotated[int, Field(ge=1, le=1024)] = 16
    """Sequences or images in one batch. The family `diffusion` defaults to 8."""
    max_waiting: Annotated[int, Field(ge=0)] = 1024
    """Limit of the queue of waiting sequences."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of one step; 0 means one per core."""
    tool_call_parser: ToolCallParser | None = None
    """Format in which the model writes tool calls; None if it does not."""
    reasoning_parser: ReasoningParser | None = None
    """Format in which the model writes its reasoning; None if it does not."""
    special_tokens_in_content: Literal["text", "recognised"] = "text"
    """Text-generation models only: how special tokens in messages are read. If `recognised`, a message can end its
    own turn."""
    owned_by: str | None = None
    """Owner that clients see. Default: the owner of the Hugging Face id, or `local`."""
    sampling: SamplingDefaults = SamplingDefaults()
    matryoshka: bool | tuple[Annotated[int, Field(ge=1)], ...] = False
    """Embedding models only: clients may shorten embeddings to any width (true) or to these widths. The model must have
    been trained for it."""
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    """Embedding models only: truncate longer inputs to this many tokens, unless a request says otherwise; -1 means the
    context length. Default: longer inputs are refused."""
    pictures: ImageOptions = ImageOptions()
    """Image models only."""
    quantization: Quantization | None = None
    """Default: by precision, see `default_quantizations`."""
    tolerance: Tolerance | None = None
    """Default: by precision, see `builders.llm.verify.TOLERANCES`."""

    @model_validator(mode="after")
    def _check_image_options(self) -> Self:
        if self.family != "diffusion" and self.pictures != ImageOptions():
            raise ValueError(f"pictures is an option of the family diffusion, not of {self.family}")
        return self

    @model_validator(mode="after")
    def _check_truncation(self) -> Self:
        if self.truncate_prompt_tokens is not None and self.family != "embedding":
            raise ValueError(f"truncate_prompt_tokens is an option of the family embedding, not of {self.family}")
        if self.truncate_prompt_tokens == 0:
            raise ValueError("truncate_prompt_tokens must be -1, for all that the model takes, or above 0")
        return self

    @model_validator(mode="after")
    def _check_control_characters(self) -> Self:
        for field in ("served_name", "source", "owned_by"):
            if any(ord(character) < 32 for character in getattr(self, field) or ""):
                raise ValueError(f"{field} must not contain control characters")
        return self


def quantization_of(recipe: Recipe) -> Quantization | None:
    """Return the compression of a recipe's weights; None if they are not compressed."""
    return recipe.quantization or recipe.default_quantizations.get(recipe.precision)


def load(name_or_file: str, **overrides: Any) -> Recipe:
    """Read one of the project's recipes by name, or a TOML file by its path.

    Values in `overrides` that are not None replace those of the file. If they choose another target or device, the
    file's `TARGET_OPTIONS` do not hold. Raises RecipeError.
    """
    path = Path(name_or_file) if name_or_file.endswith(".toml") else RECIPES_FOLDER / f"{name_or_file}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(
            f"There is no recipe {name_or_file!r}. Known: {', '.join(recipe_names())}; "
            "or give the path of a .toml file."
        ) from None
    except OSError as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} is not valid TOML: {error}") from error
    chosen = {key: value for key, value in overrides.items() if value is not None}
    if _place(values | chosen) != _place(values):
        # The recipe chose these for its own target and device.
        values = {key: value for key, value in values.items() if key not in TARGET_OPTIONS}
    return make(**values | chosen)


def _place(values: Mapping[str, Any]) -> tuple[str, str]:
    """Return the target and the device of a recipe's values."""
    target = values.get("target", "onnx")
    return target, values.get("device", "cpu" if target == "onnx" else "cuda")


def make(**values: Any) -> Recipe:
    """Return a recipe of the class that its family declares. Raises RecipeError with a clause for each wrong value.

    An unknown family gives a plain `Recipe`; `builders.registry.find` refuses it.
    """
    from builders import registry  # it imports this module

    family = registry.families().get(str(values.get("family", DEFAULT_FAMILY)))
    try:
        return (family.recipe if family else Recipe).model_validate(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'recipe'}: {fault['msg']}" for fault in error.errors()
        )
        raise RecipeError(f"The recipe is not valid. {faults}.") from None


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the project."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.toml"))


def default_model_name(source: str) -> str:
    """Return a model name for a source: `qwen2.5-0.5b-instruct` for `Qwen/Qwen2.5-0.5B-Instruct`."""
    last = source.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    return re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._") or "model"
