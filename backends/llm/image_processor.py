"""The interface of an image processor: the images of a request in, the inputs of the engine out."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.llm.engine import ImageInputs, TokenIds
from backends.llm.literal_tokenizer import LiteralSpans
from backends.serving.errors import InvalidValue


class ImageProcessor(Protocol):
    """Prepares the images of one model's prompts. All methods may be called from any thread.

    `images` are what `open_images` returned, in the order of their placeholders in the prompt.
    """

    def open_images(self, images: Sequence[bytes]) -> Sequence[Any]:
        """Check image files in base64. Raises `InvalidValue`, naming `image`."""

    def expand_text(
        self, document: bytes, images: Sequence[Any], spans: LiteralSpans = ()
    ) -> tuple[bytes, LiteralSpans]:
        """Return the prompt that the engine gets, and its literal spans.

        Raises `InvalidValue` unless there is one placeholder per image.
        """

    def expand_tokens(self, tokens: npt.NDArray[np.integer[Any]], images: Sequence[Any]) -> TokenIds:
        """Return the prompt that the engine gets, int64[n]. Raises as `expand_text`."""

    def encode(self, tokens: TokenIds, images: Sequence[Any], is_cancelled: Callable[[], bool]) -> ImageInputs:
        """Return the images for the engine. Raises `InvalidValue`, naming `image`, and `Cancelled`."""


def check_placeholders(token: str, placeholders: int, images: int, prompt: str) -> None:
    """Raise `InvalidValue` unless a prompt has as many placeholders as there are images.

    It names `prompt`, the input of the prompt, if the request has no images, otherwise `image`.
    """
    if placeholders and not images:
        raise InvalidValue(
            f"The prompt has {placeholders} of the placeholders {token}, and the request has no images; each "
            "placeholder needs an image.",
            prompt,
        )
    if placeholders != images:
        raise InvalidValue(
            f"The prompt has {placeholders} of the placeholders {token}, and the request has {images} images; each "
            "image needs one placeholder.",
            "image",
        )
