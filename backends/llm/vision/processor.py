"""Images in prompts: expand each placeholder to the text of its tiles, and encode the images.

The request frontend calls it before a request reaches the engine. It knows neither the engine nor Triton.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from backends.llm.engine import ImageInputs, TokenIds
from backends.llm.image_processor import check_placeholders
from backends.llm.literal_tokenizer import LiteralSpans, join_with_spans, split_at_spans
from backends.llm.vision.config import VisionConfig, read_vision_config
from backends.llm.vision.encoded_image import EncodedImage
from backends.llm.vision.encoder import VisionEncoder
from backends.llm.vision.feature_cache import ImageFeatureCache, ImageFeatures
from backends.llm.vision.tiles import TileLayout, plan_tiles, split_into_tiles
from backends.serving.errors import Cancelled, InvalidValue

_FEATURE_CACHE_BYTES = 256 << 20
"""Embeddings of recent images; those of a large one take two to ten megabytes."""


class VisionProcessor:
    """Prepares the images of one model's prompts. All methods may be called from any thread."""

    def __init__(self, config: VisionConfig, tokenizer: Tokenizer, encoder: Callable[..., Any]) -> None:
        """`encoder` returns the embeddings float32[n, hidden size] of a tile float32[3, tile, tile]."""
        self._config = config
        self._tokenizer = tokenizer
        self._encoder = encoder
        self.feature_cache = ImageFeatureCache(_FEATURE_CACHE_BYTES)

    def open_images(self, images: Sequence[bytes]) -> tuple[EncodedImage, ...]:
        """Read the headers of image files in base64. Raises `InvalidValue`, naming `image`."""
        return tuple(EncodedImage(encoded, number) for number, encoded in enumerate(images, 1))

    def expand_text(
        self, document: bytes, images: Sequence[EncodedImage], spans: LiteralSpans = ()
    ) -> tuple[bytes, LiteralSpans]:
        """Replace the placeholder of each image by the text of its tiles. Inside `spans`, a placeholder is plain text.

        Return the text and its new spans. Raises `InvalidValue` unless there is one placeholder per image: naming
        `text_input` if the request has no images, otherwise `image`.
        """
        placeholder = self._config.image_token.encode()
        parts = list(split_at_spans(document, spans))
        count = sum(part.count(placeholder) for part, literal in parts if not literal)
        check_placeholders(self._config.image_token, count, len(images), "text_input")
        remaining = iter(images)
        expanded: list[tuple[bytes, bool]] = []
        for part, literal in parts:
            first, *others = [part] if literal else part.split(placeholder)
            expanded.append((first, literal))
            for image, other in zip(islice(remaining, len(others)), others, strict=True):
                expanded += (
                    (self._placeholder_text(plan_tiles(image.size, self._config)).encode(), False),
                    (other, False),
                )
        return join_with_spans(expanded)

    def expand_tokens(self, tokens: npt.NDArray[np.integer[Any]], images: Sequence[EncodedImage]) -> TokenIds:
        """Expand the placeholders in a prompt of token ids, int64[n]. Raises as `expand_text`, naming `token_ids`."""
        flat = tokens.reshape(-1).astype(np.int64)
        placeholders = np.flatnonzero(flat == self._config.image_token_id)
        check_placeholders(self._config.image_token, len(placeholders), len(images), "token_ids")
        parts, start = [], 0
        for image, placeholder in zip(images, placeholders, strict=True):
            text = self._placeholder_text(plan_tiles(image.size, self._config))
            expanded = self._tokenizer.encode(text, add_special_tokens=False).ids
            parts += [flat[start:placeholder], np.array(expanded, np.int64)]
            start = placeholder + 1
        return np.concatenate([*parts, flat[start:]])

    def encode(self, tokens: TokenIds, images: Sequence[EncodedImage], is_cancelled: Callable[[], bool]) -> ImageInputs:
        """Encode the images of an expanded prompt, int64[n].

        Raises `InvalidValue`, naming `image`, and `Cancelled` if `is_cancelled` returns true between two tiles.
        """
        features = tuple(self._features(image, is_cancelled) for image in images)
        places = np.flatnonzero(tokens == self._config.image_token_id)
        ids = np.concatenate([one.ids for one in features])
        if len(places) != len(ids):
            raise InvalidValue(f"The prompt has {len(places)} positions for {len(ids)} image embeddings.", "image")
        ids_with_images = tokens.copy()
        ids_with_images[places] = ids
        return ImageInputs(ids_with_images, features)

    def _features(self, image: EncodedImage, is_cancelled: Callable[[], bool]) -> ImageFeatures:
        if found := self.feature_cache.get(image.digest):
            return found
        layout = plan_tiles(image.size, self._config)
        vectors = []
        for tile in split_into_tiles(image.rgb(), layout, self._config):
            if is_cancelled():
                raise Cancelled("The request was cancelled.")
            vectors.append(self._encoder(tile))
        return self.feature_cache.put(image.digest, np.concatenate(vectors))

    def _placeholder_text(self, layout: TileLayout) -> str:
        """Return the text that the family's processors write for an image.

        Source: transformers, `get_image_prompt_string` in `models/smolvlm/processing_smolvlm.py`.
        """
        config = self._config
        vectors = config.image_token * config.tokens_per_tile
        text = ""
        for row in range(1, layout.rows + 1):
            for column in range(1, layout.columns + 1):
                text += config.fake_token + config.tile_token.format(row=row, column=column) + vectors
            text += "\n"
        return (
            text + ("\n" if layout.rows else "") + config.fake_token + config.global_token + vectors + config.fake_token
        )


def load_vision_processor(folder: Path, tokenizer: Tokenizer, threads: int) -> VisionProcessor:
    """Read a model's `vision.json` and start its encoder.

    Raises `FileNotFoundError`, `ValueError`, or what onnxruntime raises for a broken encoder.
    """
    return VisionProcessor(read_vision_config(folder), tokenizer, VisionEncoder(folder / "vision.onnx", threads))
