"""Pictures behind the marks of a prompt: what stands for them, their vectors, and who waits for these."""

import threading
import time

import numpy as np
import pytest
from tokenizers import AddedToken

from backends.llm.active_request import Request
from backends.llm.prompt_tokenizer import PromptTokenizer
from backends.llm.request_frontend import LLMFrontend
from backends.llm.vision.feature_cache import ImageFeatureCache
from backends.llm.vision.processor import VisionProcessor
from backends.serving.errors import Cancelled, InvalidValue
from tests.fakes.tiny_smolvlm import SPECIALS, TOKENS_PER_TILE, expansion
from tests.unit.llm.image_files import base64_image, noise_image, vision_config


def test_a_gallery_finds_vectors_by_their_numbers():
    gallery = ImageFeatureCache(10_000)
    one, other = (gallery.put(name, np.full((3, 2), value, np.float32)) for name, value in ((b"1", 1), (b"2", 2)))
    assert not set(one.ids) & set(other.ids) and (one.ids < 0).all()
    into = np.zeros((5, 2), np.float32)
    gallery.fill_embeddings(np.array([7, other.ids[2], one.ids[0], 8, other.ids[0]]), into)
    assert into[:, 0].tolist() == [0, 2, 1, 0, 2]


def test_a_gallery_forgets_what_nobody_needs_and_never_gives_a_number_twice():
    gallery = ImageFeatureCache(3 * 8)
    kept = gallery.put(b"1", np.full((3, 2), 1, np.float32))
    again = gallery.put(b"2", np.zeros((1, 2), np.float32))
    assert gallery.get(b"1") is None and gallery.get(b"2") is again
    into = np.zeros((3, 2), np.float32)
    gallery.fill_embeddings(kept.ids, into)  # somebody holds it still
    assert (into == 1).all()
    ids = kept.ids
    del kept
    with pytest.raises(KeyError):
        gallery.fill_embeddings(ids, into)
    assert not set(gallery.put(b"1", np.full((3, 2), 1, np.float32)).ids) & set(ids)


@pytest.fixture
def sight(tokenizer):
    """The eyes of a model for which every tile is its mean, `TOKENS_PER_TILE` times."""
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    seen = []

    def encoder(tile):
        seen.append(tile)
        return np.full((TOKENS_PER_TILE, 2), tile.mean(), np.float32)

    made = VisionProcessor(vision_config(image_token_id=copy.token_to_id("<image>")), copy, encoder)
    made.seen, made.tokenizer = seen, copy
    return made


def test_prompts_are_expanded_as_transformers_expands_them(sight):
    wide, small = noise_image(256, 128), noise_image(10, 640)
    opened = sight.open_images([base64_image(wide), base64_image(small)])
    text, _ = sight.expand_text(b"One <image> and two <image>.", opened)
    assert text.decode() == f"One {expansion(2, 4)} and two {expansion(4, 1)}."
    ids = np.array(sight.tokenizer.encode("One <image> and two <image>.").ids, np.int32)
    assert sight.expand_tokens(ids, opened).tolist() == sight.tokenizer.encode(text.decode()).ids


def test_marks_that_callers_wrote_are_text(sight):
    opened = sight.open_images([base64_image(noise_image(256, 128))])
    text, spans = sight.expand_text("é<image> <image> <image>!".encode(), opened, ((2, 10), (17, 26)))
    assert text.decode() == f"é<image> {expansion(2, 4)} <image>!"
    assert [text[start:end].decode() for start, end in spans] == ["<image> ", " <image>!"]
    with pytest.raises(InvalidValue, match="1 of the marks"):
        sight.expand_text(b"<image><image>", (), ((0, 7),))


def test_marks_without_pictures_are_refused_by_the_name_of_the_prompt(slow_desk, sight):
    desk, _ = slow_desk
    client = Waiter()
    desk.add_request(request(b"a ~ b ~"), client)
    assert client.done.wait(10)
    (error,) = client.errors
    assert error.startswith("[invalid_value:text_input] The prompt has 2 of the marks ~, each of which stands for a")
    ids = np.array(sight.tokenizer.encode("a <image>").ids, np.int32)
    with pytest.raises(InvalidValue, match=r"\[invalid_value:token_ids\] The prompt has 1 of the marks <image>"):
        sight.expand_tokens(ids, ())
    for text, pictures in ((b"<image>", 2), (b"", 1)):
        with pytest.raises(InvalidValue, match=r"\[invalid_value:image\]"):
            sight.expand_text(text, sight.open_images([base64_image(noise_image(9, 9))] * pictures))


def test_places_of_vectors_have_their_numbers(sight):
    opened = sight.open_images([base64_image(noise_image(256, 128)), base64_image(noise_image(64, 64, seed=2))])
    tokens = np.array(sight.tokenizer.encode(sight.expand_text(b"<image>?<image>", opened)[0].decode()).ids)
    pictures = sight.encode(tokens, opened, lambda: False)
    places = pictures.tokens < 0
    assert (places == (tokens == sight.tokenizer.token_to_id("<image>"))).all()
    assert (pictures.tokens[~places] == tokens[~places]).all()
    into = np.zeros((len(tokens), 2), np.float32)
    sight.feature_cache.fill_embeddings(pictures.tokens, into)
    expected = np.repeat([tile.mean() for tile in sight.seen], TOKENS_PER_TILE)
    np.testing.assert_allclose(into[places][:, 0], expected, rtol=1e-6)


def test_a_picture_that_comes_again_is_not_encoded_again(sight):
    def look():
        opened = sight.open_images([base64_image(noise_image(128, 64))])
        tokens = np.array(sight.tokenizer.encode(sight.expand_text(b"<image>", opened)[0].decode()).ids)
        return sight.encode(tokens, opened, lambda: False).tokens.tolist()

    first, count = look(), len(sight.seen)
    assert look() == first and len(sight.seen) == count > 0


def test_encoding_ends_when_the_client_goes(sight):
    opened = sight.open_images([base64_image(noise_image(256, 256))])
    tokens = np.array(sight.tokenizer.encode(sight.expand_text(b"<image>", opened)[0].decode()).ids)
    with pytest.raises(Cancelled):
        sight.encode(tokens, opened, lambda: len(sight.seen) == 3)
    assert len(sight.seen) == 3


def test_the_gallery_serves_two_threads(sight):
    """The engine reads while pictures are hung up."""
    gallery, stop, wrong = ImageFeatureCache(1000), threading.Event(), []
    fixed = gallery.put(b"fixed", np.full((4, 2), 9, np.float32))

    def read():
        into = np.zeros((4, 2), np.float32)
        while not stop.is_set():
            gallery.fill_embeddings(fixed.ids, into)
            if not (into == 9).all():
                wrong.append(into.copy())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(3000):
        gallery.put(str(number).encode(), np.zeros((2, 2), np.float32))
    stop.set()
    reader.join()
    assert not wrong


class Slow:
    """An encoder that takes a while, and a client that may go."""

    def __init__(self):
        self.tiles, self.begun = 0, threading.Event()

    def __call__(self, tile):
        self.tiles += 1
        self.begun.set()
        time.sleep(0.05)
        return np.zeros((TOKENS_PER_TILE, 2), np.float32)


class Waiter:
    """A client."""

    def __init__(self):
        self.gone, self.errors, self.done = False, [], threading.Event()
        self.texts, self.num_prompt_tokens = [], 0

    def is_cancelled(self):
        return self.gone

    def send(self, answer, num_prompt_tokens, *, final):
        self.texts.append("".join(answer.texts))
        self.num_prompt_tokens = num_prompt_tokens
        if final:
            self.done.set()

    def fail(self, error):
        self.errors.append(str(error))
        self.done.set()


@pytest.fixture
def slow_desk(scripted_engine, sight):
    """A desk over a scripted forward pass, whose tokens are bytes: the mark of a picture is one of them."""
    engine, forward = scripted_engine()
    encoder = Slow()
    eyes = VisionProcessor(
        vision_config(
            image_token="~", image_token_id=3 + 93, fake_token="[", global_token="]", tile_token="{row}{column}"
        ),
        sight.tokenizer,
        encoder,
    )
    byte = sight.tokenizer
    assert byte.encode("~", add_special_tokens=False).ids == [3 + 93]
    prompts = PromptTokenizer(byte, bos=None, vocab_size=forward.vocab_size, context_length=engine.context_length)
    desk = LLMFrontend(engine, prompts, 8, vision_processor=eyes)
    yield desk, encoder
    desk.close()


def request(text, *images):
    return Request(text, None, True, True, b'{"temperature": 0, "max_tokens": 3}', images)


def test_a_client_who_goes_ends_the_encoding_and_holds_nobody(slow_desk):
    desk, encoder = slow_desk
    leaver, other = Waiter(), Waiter()
    desk.add_request(request(b"~", base64_image(noise_image(256, 256))), leaver)
    assert encoder.begun.wait(10)
    desk.add_request(request(b"hello"), other)
    assert other.done.wait(10) and not other.errors and encoder.tiles < 17
    leaver.gone = True
    assert leaver.done.wait(10) and leaver.errors == ["[cancelled] The request was cancelled."]
    time.sleep(0.2)
    seen = encoder.tiles
    time.sleep(0.3)
    assert encoder.tiles == seen < 17


def test_a_desk_that_closes_does_not_wait_for_a_picture(slow_desk):
    desk, encoder = slow_desk
    client = Waiter()
    desk.add_request(request(b"~", base64_image(noise_image(256, 256))), client)
    assert encoder.begun.wait(10)
    desk.close()
    assert encoder.tiles < 17 and client.errors == ["[engine_failed] The model is being unloaded."]


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_encoded(slow_desk):
    desk, encoder = slow_desk
    client = Waiter()
    desk.add_request(request(b"~" + b"x" * 990, base64_image(noise_image(256, 256))), client)
    assert client.done.wait(10) and client.errors[0].startswith("[context_length_exceeded:text_input]")
    assert encoder.tiles == 0
