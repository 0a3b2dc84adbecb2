"""Read checkpoints of the Idefics3 family (Idefics3, SmolVLM, SmolVLM2), without torch.

The processor scales an image and cuts it into square tiles. A SigLIP encoder and a pixel-shuffle connector turn each
tile into a fixed number of vectors. A Llama reads them in the places of the tokens `<image>`.
Source: transformers, `models/idefics3` and `models/smolvlm`.
"""

from pathlib import Path
from typing import Any

from builders.checkpoint import Checkpoint, read_json
from builders.errors import SourceUnavailable, UnsupportedModel

ARCHITECTURES = ("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")

IMAGE_TOKEN, FAKE_TOKEN, GLOBAL_TOKEN, TILE_TOKEN = (
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<row_{row}_col_{column}>",
)
"""Placeholder tokens that the family's processors write for the vectors of an image and around them."""

MAX_SIDE = 4096
"""Pixels of the longest side to which an image is scaled: a fixed limit of the family's processors."""


def is_idefics3(config: dict[str, Any]) -> bool:
    """Return whether a `config.json` belongs to this family."""
    return (config.get("architectures") or [None])[0] in ARCHITECTURES


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of the text model alone. Raises UnsupportedModel unless it is a Llama."""
    text = config.get("text_config") or {}
    if text.get("model_type", "llama") != "llama":
        raise UnsupportedModel(
            f"{config['architectures'][0]} is built around a Llama; this one has {text['model_type']!r}."
        )
    return {**text, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}


def vision_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the contents of `vision.json`, from which the backend knows how to preprocess images.

    Raises SourceUnavailable if the checkpoint's preprocessor is missing or its tokenizer lacks a placeholder token,
    UnsupportedModel if the preprocessor leaves out a step.
    """
    config, processor = checkpoint.config(), _preprocessor(checkpoint.folder)
    for step in ("do_convert_rgb", "do_resize", "do_rescale", "do_normalize"):
        if processor.get(step) is False:
            raise UnsupportedModel(f"The checkpoint's preprocessor sets {step} to false, which is not built.")
    try:
        tile = int(processor["max_image_size"]["longest_edge"])
        patch, shuffle = int(config["vision_config"]["patch_size"]), int(config.get("scale_factor", 2))
        found = {
            "tile": tile,
            "longest_edge": int(processor["size"]["longest_edge"]),
            "largest_side": MAX_SIDE,
            "split": bool(processor.get("do_image_splitting", True)),
            "resample": int(processor.get("resample", 1)),
            "rescale_factor": float(processor.get("rescale_factor", 1 / 255)),
            "mean": [float(value) for value in processor["image_mean"]],
            "std": [float(value) for value in processor["image_std"]],
            "tokens_per_tile": (tile // patch) ** 2 // shuffle**2,
            "image_token": IMAGE_TOKEN,
            "image_token_id": int(config["image_token_id"]),
            "fake_token": FAKE_TOKEN,
            "global_token": GLOBAL_TOKEN,
            "tile_token": TILE_TOKEN,
        }
    except (KeyError, TypeError, ValueError) as error:
        raise SourceUnavailable(f"The checkpoint does not describe the preprocessing of images: {error!r}.") from error
    _check_placeholders(checkpoint.folder, int(config["image_token_id"]))
    return found


def image_placeholder(vision: dict[str, Any], rows: int = 0, columns: int = 0) -> str:
    """Return the prompt text for one image of `rows` by `columns` tiles, as the family's processors write it.

    0 rows mean an image that is not cut into tiles. `vision` is the result of `vision_config`.
    """
    image, fake, whole, tile = (str(vision[f"{mark}_token"]) for mark in ("image", "fake", "global", "tile"))
    vectors = image * int(vision["tokens_per_tile"])
    text = ""
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            text += fake + tile.format(row=row, column=column) + vectors
        text += "\n"
    return text + ("\n" if rows else "") + fake + whole + vectors + fake


def _preprocessor(folder: Path) -> dict[str, Any]:
    """Read `preprocessor_config.json`, or the section of `processor_config.json` that transformers 5 writes instead."""
    found = read_json(folder / "preprocessor_config.json")
    if not found:
        found = read_json(folder / "processor_config.json").get("image_processor") or {}
    if not found:
        raise SourceUnavailable(
            f"{folder} has no preprocessor_config.json, so the preprocessing of its images is unknown."
        )
    return found


def _check_placeholders(folder: Path, image_token_id: int) -> None:
    added = {token["content"]: token["id"] for token in read_json(folder / "tokenizer.json").get("added_tokens", [])}
    missing = [
        token
        for token in (IMAGE_TOKEN, FAKE_TOKEN, GLOBAL_TOKEN, TILE_TOKEN.format(row=1, column=1))
        if token not in added
    ]
    if missing:
        raise SourceUnavailable(
            f"The checkpoint's tokenizer.json lacks the special tokens of images: {', '.join(missing)}."
        )
    if added[IMAGE_TOKEN] != image_token_id:
        raise SourceUnavailable(
            f"config.json says that {IMAGE_TOKEN} is the token {image_token_id}; tokenizer.json says "
            f"{added[IMAGE_TOKEN]}."
        )
