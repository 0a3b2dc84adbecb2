"""The requests of the soak are what they say they are."""

import json
import random
from collections import Counter

import pytest
from PIL import Image

from benchmarks.soak import kinds, wrong
from benchmarks.soak.load import FATES, SHARES, Load

WORDS = [" alpha", " beta", " gamma", " delta"]


@pytest.fixture(scope="module")
def made() -> list[kinds.Kind]:
    return kinds.make(WORDS, random.Random(17))


def test_the_same_seed_makes_the_same_requests(made: list[kinds.Kind]) -> None:
    again = kinds.make(WORDS, random.Random(17))
    assert [(kind.name, kind.path, kind.body) for kind in made] == [(k.name, k.path, k.body) for k in again]
    assert [kind.body for kind in made] != [kind.body for kind in kinds.make(WORDS, random.Random(18))]


def test_every_kind_of_request_is_there(made: list[kinds.Kind]) -> None:
    counted = Counter(kind.name for kind in made)
    for name in ("chat", "structured chat"):
        assert counted[f"{name}, streamed"] == counted[f"{name}, whole"] == counted[f"{name}, platform"] > 5
    assert counted["embeddings, floats"] == counted["embeddings, base64"] == kinds.TEXTS
    for name in ("pictures", "pictures, streamed", "picture, stretched", "edit", "task"):
        assert counted[name] == kinds.PICTURES


def test_twins_ask_for_the_same_in_another_way(made: list[kinds.Kind]) -> None:
    twins = [(kind, made[kind.twin]) for kind in made if kind.twin >= 0]
    assert len(twins) > 50
    for kind, twin in twins:
        assert twin.twin < 0
        mine, other = json.loads(kind.body), json.loads(twin.body)
        for name in ("stream", "partial_images", "encoding_format"):
            mine.pop(name, None), other.pop(name, None)
        assert mine == other and (kind.path, kind.body) != (twin.path, twin.body)


def test_chats_are_greedy_and_structures_of_every_schema_come(made: list[kinds.Kind]) -> None:
    chats = [json.loads(kind.body) for kind in made if "chat" in kind.name]
    assert all(body["temperature"] == 0 and 4 <= body["max_tokens"] <= 90 for body in chats)
    schemas = [body["response_format"]["json_schema"]["schema"] for body in chats if "response_format" in body]
    assert all(schema in schemas for schema in kinds.SCHEMAS)


def test_sizes_that_the_model_does_not_draw_are_asked_for_by_its_other_name(made: list[kinds.Kind]) -> None:
    bodies = [json.loads(kind.body) for kind in made if kind.name == "picture, stretched"]
    assert {body["model"] for body in bodies} == {kinds.STRETCHED}
    sizes = [tuple(map(int, body["size"].split("x"))) for body in bodies]
    assert len(set(sizes)) == len(sizes) and all(64 <= side <= 1024 for size in sizes for side in size)


def test_a_form_is_read_back_as_it_was_written() -> None:
    from email import message_from_bytes

    written, content_type = kinds.multipart({"prompt": "a star"}, {"image": kinds.drawing(1)})
    parts = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + written).get_payload()
    assert isinstance(parts, list)
    named = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}
    assert named == {"prompt": b"a star", "image": kinds.drawing(1)}


def test_drawings_are_pictures_of_the_models_size() -> None:
    import io

    pictures = [Image.open(io.BytesIO(kinds.drawing(number))) for number in range(3)]
    assert {(picture.format, picture.size) for picture in pictures} == {("PNG", kinds.SIZE)}
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_wrong_requests_are_of_every_dialect_and_want_a_refusal() -> None:
    made = wrong.make()
    assert all(400 <= status < 500 for each in made for status in each.statuses)
    for path in ("/v1/chat", "/v1/completions", "/v1/embeddings", "/v1/images/edits", "/tritonic/v1/images/gen"):
        assert sum(each.path.startswith(path) for each in made) >= 5, path
    large = [each for each in made if each.statuses == (413,)]
    assert large and all(len(each.body) > wrong.LARGEST for each in large)
    assert all(len(each.body) <= wrong.LARGEST for each in made if each not in large)


def test_wrong_requests_of_json_are_json_but_where_that_is_what_is_wrong() -> None:
    broken = ("no JSON", "no body", "no UTF-8", "nested too deep")
    for each in wrong.make():
        if each.content_type == "application/json" and each.body:
            try:
                json.loads(each.body)
            except (ValueError, RecursionError):
                assert each.what in broken, each.what


def test_what_is_picked_suits_what_becomes_of_it(made: list[kinds.Kind]) -> None:
    load = Load(made, wrong.make(), random.Random(3))
    drawn = {made[load.pick("drawn by lot")].name for _ in range(200)}
    assert drawn == {"chat, streamed"}
    assert {made[load.pick("hasty")].name for _ in range(200)} == {"embeddings, floats", "embeddings, base64"}
    assert {made[load.pick("served")].name for _ in range(3000)} == {kind.name for kind in made}
    assert sum(FATES.values()) == 100 and set(SHARES) >= {"chat", "embeddings", "picture", "edit", "task"}
