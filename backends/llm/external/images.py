"""Images for engines that encode them: checked and decoded here, with one placeholder each in the prompt.

No file of a caller reaches the decoders of an engine, which run in its own process.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from backends.llm.engine import ImageInputs, TokenIds
from backends.llm.image_processor import check_placeholders
from backends.llm.literal_tokenizer import LiteralSpans, split_at_spans
from backends.llm.vision.encoded_image import EncodedImage
from backends.serving.errors import Cancelled


class RawImageProcessor:
    """An `ImageProcessor` that leaves encoding, and the expansion of the prompt, to the engine."""

    def __init__(self, tokenizer: Tokenizer, image_token_id: int) -> None:
        """`image_token_id` is the placeholder of an image. Raises `ValueError` if the tokenizer does not have it."""
        token = tokenizer.id_to_token(image_token_id)
        if token is None:
            raise ValueError(f"The tokenizer has no token {image_token_id}, the placeholder of an image.")
        self._token = str(token)
        self._token_id = image_token_id

    def open_images(self, images: Sequence[bytes]) -> tuple[EncodedImage, ...]:
        """Read the headers of image files in base64. Raises `InvalidValue`, naming `image`."""
        return tuple(EncodedImage(encoded, number) for number, encoded in enumerate(images, 1))

    def expand_text(
        self, document: bytes, images: Sequence[EncodedImage], spans: LiteralSpans = ()
    ) -> tuple[bytes, LiteralSpans]:
        """Return the prompt and its spans unchanged. Raises `InvalidValue` unless there is a placeholder per image."""
        token = self._token.encode()
        count = sum(part.count(token) for part, literal in split_at_spans(document, spans) if not literal)
        check_placeholders(self._token, count, len(images), "text_input")
        return document, spans

    def expand_tokens(self, tokens: npt.NDArray[np.integer[Any]], images: Sequence[EncodedImage]) -> TokenIds:
        """Return the prompt as int64[n]. Raises `InvalidValue` unless there is a placeholder per image."""
        flat: TokenIds = tokens.reshape(-1).astype(np.int64)
        check_placeholders(self._token, int((flat == self._token_id).sum()), len(images), "token_ids")
        return flat

    def encode(self, tokens: TokenIds, images: Sequence[EncodedImage], is_cancelled: Callable[[], bool]) -> ImageInputs:
        """Decode the images to RGB. Raises `InvalidValue`, naming `image`, and `Cancelled`."""
        decoded = []
        for image in images:
            if is_cancelled():
                raise Cancelled("The request was cancelled.")
            decoded.append(image.rgb())
        return ImageInputs(tokens, tuple(decoded))
