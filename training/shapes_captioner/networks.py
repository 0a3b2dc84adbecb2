"""The model: a stock `Idefics3ForConditionalGeneration` of transformers, small enough to train on two cores."""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from backends.llm.vision.config import VisionConfig
from backends.llm.vision.tiles import plan_tiles, split_into_tiles
from builders.checkpoint import FROM_PRETRAINED_OPTIONS
from builders.vision import idefics3
from training.shapes_captioner.tokenizer import (
    END,
    FAKE,
    GLOBAL,
    IMAGE,
    PAD,
    START,
    make_tokenizer,
    write_tokenizer,
)

WEIGHTS = Path(__file__).parents[2] / "builders" / "shapes_captioner" / "weights"
"""Folder of the trained model: Hugging Face's layout, fp16 safetensors."""

TILE, PATCH, SHUFFLE = 64, 8, 2
"""Side of a picture as the image encoder sees it, and of one of its patches, in pixels; and patches along the side of a
square that the connector makes into one vector."""

CELLS = TILE // PATCH // SHUFFLE
"""Vectors along a side of a picture; each covers a cell of the picture."""

IMAGE_TOKENS = CELLS**2
"""Vectors, and so tokens, of a picture."""

MAX_TOKENS = 1024
"""Context length, in tokens."""

IMAGE_TEXT = FAKE + GLOBAL + IMAGE * IMAGE_TOKENS + FAKE
"""The text of a picture in a prompt."""

PREPROCESSOR = {
    "image_processor_type": "Idefics3ImageProcessor",
    "processor_class": "Idefics3Processor",
    "do_convert_rgb": True,
    "do_image_splitting": False,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "max_image_size": {"longest_edge": TILE},
    "resample": 1,
    "rescale_factor": 1 / 255,
    "size": {"longest_edge": TILE},
}
"""Contents of `preprocessor_config.json`."""


@dataclass(frozen=True, slots=True)
class NetworkSizes:
    """Sizes of the networks. The defaults are those of the trained weights."""

    vision_width: int = 192
    vision_layers: int = 4
    vision_heads: int = 6
    text_width: int = 192
    text_layers: int = 4
    text_heads: int = 6
    text_kv_heads: int = 2
    text_ffn: int = 512


TINY = NetworkSizes(32, 1, 2, 32, 1, 2, 1, 64)
"""Sizes for tests, where a step takes milliseconds."""


def new_captioner(tokenizer: Any, sizes: NetworkSizes = NetworkSizes()) -> Any:
    """Return an untrained model for a `tokenizers.Tokenizer`."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    ids = {
        "bos_token_id": tokenizer.token_to_id(START),
        "eos_token_id": tokenizer.token_to_id(END),
        "pad_token_id": tokenizer.token_to_id(PAD),
    }
    config = Idefics3Config(
        image_token_id=tokenizer.token_to_id(IMAGE),
        scale_factor=SHUFFLE,
        tie_word_embeddings=False,
        text_config={
            "model_type": "llama",
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": sizes.text_width,
            "intermediate_size": sizes.text_ffn,
            "num_hidden_layers": sizes.text_layers,
            "num_attention_heads": sizes.text_heads,
            "num_key_value_heads": sizes.text_kv_heads,
            "max_position_embeddings": MAX_TOKENS,
            **ids,
        },
        vision_config={
            "hidden_size": sizes.vision_width,
            "intermediate_size": 4 * sizes.vision_width,
            "num_hidden_layers": sizes.vision_layers,
            "num_attention_heads": sizes.vision_heads,
            "image_size": TILE,
            "patch_size": PATCH,
        },
        **ids,
    )
    return Idefics3ForConditionalGeneration(config)


def save_captioner(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the model as a folder of safetensors; the model keeps its own precision."""
    copy.deepcopy(model).to(dtype).save_pretrained(folder)
    for file in folder.glob("*.safetensors"):  # they are written readable only by their owner
        file.chmod(0o644)
    write_tokenizer(tokenizer, folder, MAX_TOKENS)
    ends = {"bos_token_id": tokenizer.token_to_id(START), "eos_token_id": tokenizer.token_to_id(END)}
    for name, values in (
        ("preprocessor_config.json", PREPROCESSOR),
        ("processor_config.json", {"processor_class": "Idefics3Processor", "image_seq_len": IMAGE_TOKENS}),
        ("generation_config.json", {**ends, "pad_token_id": tokenizer.token_to_id(PAD)}),
    ):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def load_captioner(folder: Path = WEIGHTS) -> tuple[Any, Any]:
    """Return the model in float32, and its `tokenizers.Tokenizer`."""
    from tokenizers import Tokenizer
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, **FROM_PRETRAINED_OPTIONS).eval()
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def tiny_captioner(folder: Path) -> None:
    """Write a model with random weights and tiny networks."""
    torch.manual_seed(1)
    tokenizer = make_tokenizer()
    save_captioner(new_captioner(tokenizer, TINY), tokenizer, folder)


CONFIG = VisionConfig(
    tile=TILE,
    longest_edge=TILE,
    largest_side=idefics3.MAX_SIDE,
    split=False,
    resample=1,
    rescale_factor=1 / 255,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    tokens_per_tile=IMAGE_TOKENS,
    image_token=IMAGE,
    image_token_id=0,
    fake_token=FAKE,
    global_token=GLOBAL,
    tile_token=idefics3.TILE_TOKEN,
)
"""The options by which the backend prepares images, as it reads them from `PREPROCESSOR`; no token ids are needed."""


def to_tiles(images: Sequence[Image.Image]) -> Any:
    """Return the tiles of images, float32[n, 3, TILE, TILE], prepared as the backend prepares them."""
    tiles = [next(split_into_tiles(image, plan_tiles(image.size, CONFIG), CONFIG)) for image in images]
    return torch.from_numpy(np.stack(tiles))
