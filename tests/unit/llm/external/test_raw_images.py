"""Images for engines that encode them: one placeholder each, checked and decoded in the worker process."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from backends.llm.external.images import RawImageProcessor
from backends.serving.errors import Cancelled, InvalidValue
from tests.unit.llm.image_files import base64_image, noise_image

PLACEHOLDER = 3 + 93
"""The token of `~`, with a token for each byte."""


@pytest.fixture
def processor(tokenizer: Tokenizer) -> RawImageProcessor:
    assert tokenizer.encode("~", add_special_tokens=False).ids == [PLACEHOLDER]
    return RawImageProcessor(tokenizer, PLACEHOLDER)


def test_the_prompt_stays_and_the_images_are_decoded(processor: RawImageProcessor) -> None:
    pictures = [noise_image(40, 30), noise_image(16, 20)]
    images = processor.open_images([base64_image(picture) for picture in pictures])
    assert processor.expand_text(b"a~b~", images) == (b"a~b~", ())
    tokens = processor.expand_tokens(np.array([[70, PLACEHOLDER, PLACEHOLDER]], np.int32), images)
    assert tokens.tolist() == [70, PLACEHOLDER, PLACEHOLDER]
    inputs = processor.encode(tokens, images, lambda: False)
    assert inputs.tokens is tokens
    decoded = [np.asarray(image) for image in inputs.features]
    assert [image.shape for image in decoded] == [(30, 40, 3), (20, 16, 3)]
    assert all((image == np.asarray(picture)).all() for image, picture in zip(decoded, pictures, strict=True))


@pytest.mark.parametrize(("prompt", "count", "name"), [(b"~", 0, "text_input"), (b"~~", 1, "image"), (b"", 1, "image")])
def test_each_image_has_one_placeholder(processor: RawImageProcessor, prompt: bytes, count: int, name: str) -> None:
    images = processor.open_images([base64_image(noise_image(8, 8))] * count)
    with pytest.raises(InvalidValue, match=rf"^\[invalid_value:{name}\]"):
        processor.expand_text(prompt, images)
    with pytest.raises(InvalidValue, match=rf"^\[invalid_value:{name.replace('text_input', 'token_ids')}\]"):
        processor.expand_tokens(np.array([PLACEHOLDER] * len(prompt), np.int32), images)


def test_a_placeholder_in_a_callers_text_is_text(processor: RawImageProcessor) -> None:
    assert processor.expand_text(b"a~", (), ((1, 2),)) == (b"a~", ((1, 2),))


def test_files_that_are_no_images_reach_no_engine(processor: RawImageProcessor) -> None:
    with pytest.raises(InvalidValue, match="Image 1"):
        processor.open_images([b"aGVsbG8="])


def test_decoding_ends_when_the_client_has_gone(processor: RawImageProcessor) -> None:
    images = processor.open_images([base64_image(noise_image(8, 8))])
    with pytest.raises(Cancelled):
        processor.encode(np.array([PLACEHOLDER]), images, lambda: True)


def test_the_tokenizer_must_have_the_placeholder(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no token 9999"):
        RawImageProcessor(tokenizer, 9999)
