"""Images in prompts: the text that replaces a placeholder, their embeddings, and requests that wait for encoding."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer

from backends.llm.active_request import Request
from backends.llm.prompt_tokenizer import PromptTokenizer
from backends.llm.request_frontend import LLMFrontend
from backends.llm.vision.feature_cache import ImageFeatureCache
from backends.llm.vision.processor import VisionProcessor
from backends.serving.errors import Cancelled, GenerationError, InvalidValue
from tests.fakes.tiny_smolvlm import SPECIALS, TOKENS_PER_TILE, expansion
from tests.unit.llm.image_files import base64_image, noise_image, vision_config
from tests.unit.llm.waiting import wait_until


def test_the_feature_cache_finds_embeddings_by_their_ids() -> None:
    cache = ImageFeatureCache(10_000)
    first, second = (cache.put(digest, np.full((3, 2), value, np.float32)) for digest, value in ((b"1", 1), (b"2", 2)))
    assert not set(first.ids) & set(second.ids) and (first.ids < 0).all()
    embeddings = np.zeros((5, 2), np.float32)
    cache.fill_embeddings(np.array([7, second.ids[2], first.ids[0], 8, second.ids[0]]), embeddings)
    assert embeddings[:, 0].tolist() == [0, 2, 1, 0, 2]


def test_the_feature_cache_drops_unused_features_and_never_reuses_an_id() -> None:
    cache = ImageFeatureCache(3 * 8)
    in_use = cache.put(b"1", np.full((3, 2), 1, np.float32))
    latest = cache.put(b"2", np.zeros((1, 2), np.float32))
    assert cache.get(b"1") is None and cache.get(b"2") is latest
    embeddings = np.zeros((3, 2), np.float32)
    cache.fill_embeddings(in_use.ids, embeddings)  # `in_use` still refers to the features
    assert (embeddings == 1).all()
    ids = in_use.ids
    del in_use
    with pytest.raises(KeyError):
        cache.fill_embeddings(ids, embeddings)
    assert not set(cache.put(b"1", np.full((3, 2), 1, np.float32)).ids) & set(ids)


@pytest.fixture
def image_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer of bytes with the special tokens of images."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    return copy


class RecordingEncoder:
    """An encoder whose embeddings are the mean of a tile, `TOKENS_PER_TILE` times."""

    def __init__(self) -> None:
        self.tiles: list[Any] = []

    def __call__(self, tile: Any) -> Any:
        self.tiles.append(tile)
        return np.full((TOKENS_PER_TILE, 2), tile.mean(), np.float32)


@pytest.fixture
def encoder() -> RecordingEncoder:
    return RecordingEncoder()


@pytest.fixture
def processor(image_tokenizer: Tokenizer, encoder: RecordingEncoder) -> VisionProcessor:
    config = vision_config(image_token_id=image_tokenizer.token_to_id("<image>"))
    return VisionProcessor(config, image_tokenizer, encoder)


Expand = Callable[..., tuple[Any, Any]]


@pytest.fixture
def expand(processor: VisionProcessor, image_tokenizer: Tokenizer) -> Expand:
    """A function that returns the tokens of an expanded prompt, and its opened images."""

    def expand(prompt: bytes, *images: Any) -> tuple[Any, Any]:
        opened = processor.open_images([base64_image(image) for image in images])
        text, _ = processor.expand_text(prompt, opened)
        return np.array(image_tokenizer.encode(text.decode()).ids), opened

    return expand


def test_prompts_are_expanded_as_transformers_expands_them(
    processor: VisionProcessor, image_tokenizer: Tokenizer
) -> None:
    wide, small = noise_image(256, 128), noise_image(10, 640)
    opened = processor.open_images([base64_image(wide), base64_image(small)])
    text, _ = processor.expand_text(b"One <image> and two <image>.", opened)
    assert text.decode() == f"One {expansion(2, 4)} and two {expansion(4, 1)}."
    ids = np.array(image_tokenizer.encode("One <image> and two <image>.").ids, np.int32)
    assert processor.expand_tokens(ids, opened).tolist() == image_tokenizer.encode(text.decode()).ids


def test_placeholders_in_literal_spans_are_text(processor: VisionProcessor) -> None:
    opened = processor.open_images([base64_image(noise_image(256, 128))])
    text, spans = processor.expand_text("é<image> <image> <image>!".encode(), opened, ((2, 10), (17, 26)))
    assert text.decode() == f"é<image> {expansion(2, 4)} <image>!"
    assert [text[start:end].decode() for start, end in spans] == ["<image> ", " <image>!"]
    with pytest.raises(InvalidValue, match="1 of the placeholders"):
        processor.expand_text(b"<image><image>", (), ((0, 7),))


def test_placeholders_without_images_are_refused_by_the_name_of_the_prompt(
    gated_frontend: "tuple[LLMFrontend, GatedEncoder]", processor: VisionProcessor, image_tokenizer: Tokenizer
) -> None:
    frontend, _ = gated_frontend
    sender = RecordingSender()
    frontend.add_request(request(b"a ~ b ~"), sender)
    assert sender.ended.wait(60)
    (error,) = sender.errors
    assert error.startswith("[invalid_value:text_input] The prompt has 2 of the placeholders ~, ")
    ids = np.array(image_tokenizer.encode("a <image>").ids, np.int32)
    with pytest.raises(InvalidValue, match=r"\[invalid_value:token_ids\] The prompt has 1 of the placeholders <image>"):
        processor.expand_tokens(ids, ())
    for text, num_images in ((b"<image>", 2), (b"", 1)):
        with pytest.raises(InvalidValue, match=r"\[invalid_value:image\]"):
            processor.expand_text(text, processor.open_images([base64_image(noise_image(9, 9))] * num_images))


def test_positions_of_embeddings_have_the_ids_of_the_features(
    processor: VisionProcessor, encoder: RecordingEncoder, image_tokenizer: Tokenizer, expand: Expand
) -> None:
    tokens, opened = expand(b"<image>?<image>", noise_image(256, 128), noise_image(64, 64, seed=2))
    inputs = processor.encode(tokens, opened, lambda: False)
    is_embedding = inputs.tokens < 0
    assert (is_embedding == (tokens == image_tokenizer.token_to_id("<image>"))).all()
    assert (inputs.tokens[~is_embedding] == tokens[~is_embedding]).all()
    embeddings = np.zeros((len(tokens), 2), np.float32)
    processor.feature_cache.fill_embeddings(inputs.tokens, embeddings)
    expected = np.repeat([tile.mean() for tile in encoder.tiles], TOKENS_PER_TILE)
    np.testing.assert_allclose(embeddings[is_embedding][:, 0], expected, rtol=1e-6)


def test_an_image_that_comes_again_is_not_encoded_again(
    processor: VisionProcessor, encoder: RecordingEncoder, expand: Expand
) -> None:
    tokens, opened = expand(b"<image>", noise_image(128, 64))
    first = processor.encode(tokens, opened, lambda: False)
    num_tiles = len(encoder.tiles)
    tokens, opened = expand(b"<image>", noise_image(128, 64))
    assert processor.encode(tokens, opened, lambda: False).tokens.tolist() == first.tokens.tolist()
    assert len(encoder.tiles) == num_tiles > 0


def test_encoding_ends_between_two_tiles_on_a_disconnect(
    processor: VisionProcessor, encoder: RecordingEncoder, expand: Expand
) -> None:
    tokens, opened = expand(b"<image>", noise_image(256, 256))
    with pytest.raises(Cancelled):
        processor.encode(tokens, opened, lambda: len(encoder.tiles) == 3)
    assert len(encoder.tiles) == 3


def test_the_feature_cache_serves_two_threads() -> None:
    """The engine reads embeddings while new images are added."""
    cache, stop = ImageFeatureCache(1000), threading.Event()
    wrong_embeddings: list[Any] = []
    features = cache.put(b"fixed", np.full((4, 2), 9, np.float32))

    def read() -> None:
        embeddings = np.zeros((4, 2), np.float32)
        while not stop.is_set():
            cache.fill_embeddings(features.ids, embeddings)
            if not (embeddings == 9).all():
                wrong_embeddings.append(embeddings.copy())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(3000):
        cache.put(str(number).encode(), np.zeros((2, 2), np.float32))
    stop.set()
    reader.join()
    assert not wrong_embeddings


class GatedEncoder:
    """An encoder that counts its tiles, and waits at `gate`, which is closed at first."""

    def __init__(self) -> None:
        self.tiles = 0
        self.begun = threading.Event()
        self.gate = threading.Event()

    def __call__(self, tile: Any) -> Any:
        self.tiles += 1
        self.begun.set()
        assert self.gate.wait(60)
        return np.zeros((TOKENS_PER_TILE, 2), np.float32)


@dataclass
class RecordingSender:
    """A response sender that records its errors; `disconnected` simulates a disconnect."""

    disconnected: bool = False
    errors: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def is_cancelled(self) -> bool:
        return self.disconnected

    def send(self, answer: Any, num_prompt_tokens: int, *, final: bool) -> None:
        if final:
            self.ended.set()

    def fail(self, error: GenerationError) -> None:
        self.errors.append(str(error))
        self.ended.set()


@pytest.fixture
def gated_frontend(
    scripted_engine: Callable[..., tuple[Any, Any]], image_tokenizer: Tokenizer
) -> Iterator[tuple[LLMFrontend, GatedEncoder]]:
    """A frontend over a scripted model runner, whose tokens are bytes: the image placeholder is one of them."""
    engine, runner = scripted_engine()
    encoder = GatedEncoder()
    config = vision_config(
        image_token="~", image_token_id=3 + 93, fake_token="[", global_token="]", tile_token="{row}{column}"
    )
    assert image_tokenizer.encode("~", add_special_tokens=False).ids == [3 + 93]
    prompts = PromptTokenizer(
        image_tokenizer, bos=None, vocab_size=runner.vocab_size, context_length=engine.context_length
    )
    processor = VisionProcessor(config, image_tokenizer, encoder)
    frontend = LLMFrontend(engine, prompts, 8, vision_processor=processor)
    yield frontend, encoder
    encoder.gate.set()
    frontend.close()


def request(text: bytes, *images: bytes) -> Request:
    return Request(text, None, True, True, b'{"temperature": 0, "max_tokens": 3}', images)


def test_a_disconnect_ends_the_encoding_and_encoding_delays_no_other_request(
    gated_frontend: tuple[LLMFrontend, GatedEncoder],
) -> None:
    frontend, encoder = gated_frontend
    leaver, other, refused = RecordingSender(), RecordingSender(), RecordingSender()
    frontend.add_request(request(b"~", base64_image(noise_image(256, 256))), leaver)
    assert encoder.begun.wait(60)
    frontend.add_request(request(b"hello"), other)
    assert other.ended.wait(60) and not other.errors and encoder.tiles == 1
    leaver.disconnected = True
    assert leaver.ended.wait(60) and leaver.errors == ["[cancelled] The request was cancelled."]
    encoder.gate.set()
    # The same thread prepares this request, after the first.
    frontend.add_request(request(b"no placeholder", base64_image(noise_image(64, 64))), refused)
    assert refused.ended.wait(60) and encoder.tiles == 1


def test_closing_does_not_wait_for_the_rest_of_an_image(gated_frontend: tuple[LLMFrontend, GatedEncoder]) -> None:
    frontend, encoder = gated_frontend
    sender = RecordingSender()
    frontend.add_request(request(b"~", base64_image(noise_image(256, 256))), sender)
    assert encoder.begun.wait(60)
    closing = threading.Thread(target=frontend.close)
    closing.start()
    wait_until(frontend.is_closed)
    encoder.gate.set()
    closing.join(60)
    assert encoder.tiles == 1 and sender.errors == ["[engine_failed] The model is being unloaded."]


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_encoded(
    gated_frontend: tuple[LLMFrontend, GatedEncoder],
) -> None:
    frontend, encoder = gated_frontend
    sender = RecordingSender()
    frontend.add_request(request(b"~" + b"x" * 990, base64_image(noise_image(256, 256))), sender)
    assert sender.ended.wait(60) and sender.errors[0].startswith("[context_length_exceeded:text_input]")
    assert encoder.tiles == 0
