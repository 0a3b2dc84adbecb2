"""What the desk asks about pictures: what stands for them in a prompt, and their vectors."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from backends.llm.engine import ImageInputs, TokenIds
from backends.llm.literal_tokenizer import LiteralSpans, join_with_spans, split_at_spans
from backends.llm.vision.config import VisionConfig, read_vision_config
from backends.llm.vision.encoded_image import EncodedImage
from backends.llm.vision.encoder import VisionEncoder
from backends.llm.vision.feature_cache import ImageFeatureCache, ImageFeatures
from backends.llm.vision.tiles import TileLayout, plan_tiles, split_into_tiles
from backends.serving.errors import Cancelled, InvalidValue

# Pictures that were encoded lately; a large one takes two to ten megabytes.
_FEATURE_CACHE_BYTES = 256 << 20


class VisionProcessor:
    """The eyes of one model. All methods may be called from any thread."""

    def __init__(self, facts: VisionConfig, tokenizer: Tokenizer, encoder: Callable[..., Any]) -> None:
        """`encoder` makes vectors float32[n, hidden size] of a tile float32[3, tile, tile]."""
        self._config = facts
        self._tokenizer = tokenizer
        self._encoder = encoder
        self.feature_cache = ImageFeatureCache(_FEATURE_CACHE_BYTES)

    def open_images(self, images: Sequence[bytes]) -> tuple[EncodedImage, ...]:
        """Read the headers of files in base64. Raises `InvalidValue`, naming `image`."""
        return tuple(EncodedImage(encoded, number) for number, encoded in enumerate(images, 1))

    def expand_text(
        self, document: bytes, pictures: Sequence[EncodedImage], spans: LiteralSpans = ()
    ) -> tuple[bytes, LiteralSpans]:
        """Put what stands for each picture in the place of its mark; marks in `spans` are none. Raises `InvalidValue`.

        Returns the text, and where in it the spans are now. It names `text_input` where there are marks and no pictures
        at all, `image` where there are some.
        """
        mark = self._config.image_token.encode()
        parts = list(split_at_spans(document, spans))
        self._check(sum(part.count(mark) for part, literal in parts if not literal), len(pictures), "text_input")
        left = iter(pictures)
        expanded: list[tuple[bytes, bool]] = []
        for part, literal in parts:
            first, *others = [part] if literal else part.split(mark)
            expanded.append((first, literal))
            for picture, other in zip(islice(left, len(others)), others, strict=True):
                expanded += (
                    (self._placeholder_text(plan_tiles(picture.size, self._config)).encode(), False),
                    (other, False),
                )
        return join_with_spans(expanded)

    def expand_tokens(self, tokens: npt.NDArray[np.integer[Any]], pictures: Sequence[EncodedImage]) -> TokenIds:
        """The same for a prompt of token ids, int64[n]; it names `token_ids`."""
        flat = tokens.reshape(-1).astype(np.int64)
        marks = np.flatnonzero(flat == self._config.image_token_id)
        self._check(len(marks), len(pictures), "token_ids")
        parts, start = [], 0
        for picture, mark in zip(pictures, marks, strict=True):
            text = self._placeholder_text(plan_tiles(picture.size, self._config))
            inside = self._tokenizer.encode(text, add_special_tokens=False).ids
            parts += [flat[start:mark], np.array(inside, np.int64)]
            start = mark + 1
        return np.concatenate([*parts, flat[start:]])

    def encode(
        self, tokens: TokenIds, pictures: Sequence[EncodedImage], is_cancelled: Callable[[], bool]
    ) -> ImageInputs:
        """Encode pictures for an expanded prompt. Raises `InvalidValue`, naming `image`, or `Cancelled`."""
        features = tuple(self._features(picture, is_cancelled) for picture in pictures)
        places = np.flatnonzero(tokens == self._config.image_token_id)
        ids = np.concatenate([one.ids for one in features])
        if len(places) != len(ids):
            raise InvalidValue(f"The prompt has {len(places)} places for {len(ids)} vectors of pictures.", "image")
        read = tokens.copy()
        read[places] = ids
        return ImageInputs(read, features)

    def _features(self, picture: EncodedImage, is_cancelled: Callable[[], bool]) -> ImageFeatures:
        if found := self.feature_cache.get(picture.digest):
            return found
        how = plan_tiles(picture.size, self._config)
        vectors = []
        for tile in split_into_tiles(picture.rgb(), how, self._config):
            if is_cancelled():
                raise Cancelled("The request was cancelled.")
            vectors.append(self._encoder(tile))
        return self.feature_cache.put(picture.digest, np.concatenate(vectors))

    def _placeholder_text(self, how: TileLayout) -> str:
        """What the family's processors write for a picture.

        Source: transformers, `get_image_prompt_string` in `models/smolvlm/processing_smolvlm.py`.
        """
        facts = self._config
        vectors = facts.image_token * facts.tokens_per_tile
        text = ""
        for row in range(1, how.rows + 1):
            for column in range(1, how.columns + 1):
                text += facts.fake_token + facts.tile_token.format(row=row, column=column) + vectors
            text += "\n"
        return text + ("\n" if how.rows else "") + facts.fake_token + facts.global_token + vectors + facts.fake_token

    def _check(self, marks: int, pictures: int, prompt: str) -> None:
        if marks and not pictures:
            raise InvalidValue(
                f"The prompt has {marks} of the marks {self._config.image_token}, each of which stands for a picture; "
                "none came with the request.",
                prompt,
            )
        if marks != pictures:
            raise InvalidValue(
                f"The prompt has {marks} of the marks {self._config.image_token}, and the request has {pictures} "
                "pictures; each picture has one mark.",
                "image",
            )


def load_vision_processor(folder: Path, tokenizer: Tokenizer, threads: int) -> VisionProcessor:
    """Read a model's facts and start its encoder. Raises `FileNotFoundError`, `ValueError`, or as `Encoder`."""
    return VisionProcessor(read_vision_config(folder), tokenizer, VisionEncoder(folder / "vision.onnx", threads))
