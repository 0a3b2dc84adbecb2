"""The requests of the soak are what they say they are."""

import json
import random
from collections import Counter

import pytest
from PIL import Image

from benchmarks.soak import invalid_requests, workloads
from benchmarks.soak.load import BEHAVIOURS, SHARES, MixedLoad

WORDS = [" alpha", " beta", " gamma", " delta"]


@pytest.fixture(scope="module")
def made() -> list[workloads.Workload]:
    return workloads.make_workloads(WORDS, random.Random(17))


def test_the_same_seed_makes_the_same_requests(made: list[workloads.Workload]) -> None:
    again = workloads.make_workloads(WORDS, random.Random(17))
    assert [(kind.name, kind.path, kind.body) for kind in made] == [(k.name, k.path, k.body) for k in again]
    assert [kind.body for kind in made] != [kind.body for kind in workloads.make_workloads(WORDS, random.Random(18))]


def test_every_kind_of_request_is_there(made: list[workloads.Workload]) -> None:
    counted = Counter(kind.name for kind in made)
    for name in ("chat", "structured chat"):
        assert counted[f"{name}, streamed"] == counted[f"{name}, whole"] == counted[f"{name}, platform"] > 5
    assert counted["embeddings, floats"] == counted["embeddings, base64"] == workloads.TEXTS
    for name in ("pictures", "pictures, streamed", "picture, stretched", "edit", "task"):
        assert counted[name] == workloads.PICTURES


def test_twins_ask_for_the_same_in_another_way(made: list[workloads.Workload]) -> None:
    twins = [(kind, made[kind.same_answer_as]) for kind in made if kind.same_answer_as >= 0]
    assert len(twins) > 50
    for kind, twin in twins:
        assert twin.same_answer_as < 0
        mine, other = json.loads(kind.body), json.loads(twin.body)
        for name in ("stream", "partial_images", "encoding_format"):
            mine.pop(name, None), other.pop(name, None)
        assert mine == other and (kind.path, kind.body) != (twin.path, twin.body)


def test_chats_are_greedy_and_structures_of_every_schema_come(made: list[workloads.Workload]) -> None:
    chats = [json.loads(kind.body) for kind in made if "chat" in kind.name]
    assert all(body["temperature"] == 0 and 4 <= body["max_tokens"] <= 90 for body in chats)
    schemas = [body["response_format"]["json_schema"]["schema"] for body in chats if "response_format" in body]
    assert all(schema in schemas for schema in workloads.SCHEMAS)


def test_sizes_that_the_model_does_not_draw_are_asked_for_by_its_other_name(made: list[workloads.Workload]) -> None:
    bodies = [json.loads(kind.body) for kind in made if kind.name == "picture, stretched"]
    assert {body["model"] for body in bodies} == {workloads.RESIZED_MODEL}
    sizes = [tuple(map(int, body["size"].split("x"))) for body in bodies]
    assert len(set(sizes)) == len(sizes) and all(64 <= side <= 1024 for size in sizes for side in size)


def test_a_form_is_read_back_as_it_was_written() -> None:
    from email import message_from_bytes

    written, content_type = workloads.multipart({"prompt": "a star"}, {"image": workloads.drawing(1)})
    parts = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + written).get_payload()
    assert isinstance(parts, list)
    named = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}
    assert named == {"prompt": b"a star", "image": workloads.drawing(1)}


def test_drawings_are_pictures_of_the_models_size() -> None:
    import io

    pictures = [Image.open(io.BytesIO(workloads.drawing(number))) for number in range(3)]
    assert {(picture.format, picture.size) for picture in pictures} == {("PNG", workloads.SIZE)}
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_wrong_requests_are_of_every_dialect_and_want_a_refusal() -> None:
    made = invalid_requests.make_invalid_requests()
    assert all(400 <= status < 500 for each in made for status in each.statuses)
    for path in ("/v1/chat", "/v1/completions", "/v1/embeddings", "/v1/images/edits", "/tritonic/v1/images/gen"):
        assert sum(each.path.startswith(path) for each in made) >= 5, path
    large = [each for each in made if each.statuses == (413,)]
    assert large and all(len(each.body) > invalid_requests.MAX_BODY_BYTES for each in large)
    assert all(len(each.body) <= invalid_requests.MAX_BODY_BYTES for each in made if each not in large)


def test_wrong_requests_of_json_are_json_but_where_that_is_what_is_wrong() -> None:
    broken = ("no JSON", "no body", "no UTF-8", "nested too deep")
    for each in invalid_requests.make_invalid_requests():
        if each.content_type == "application/json" and each.body:
            try:
                json.loads(each.body)
            except (ValueError, RecursionError):
                assert each.title in broken, each.title


def test_what_is_picked_suits_what_becomes_of_it(made: list[workloads.Workload]) -> None:
    load = MixedLoad(made, invalid_requests.make_invalid_requests(), random.Random(3))
    drawn = {made[load.pick("drawn by lot")].name for _ in range(200)}
    assert drawn == {"chat, streamed"}
    assert {made[load.pick("hasty")].name for _ in range(200)} == {"embeddings, floats", "embeddings, base64"}
    assert {made[load.pick("served")].name for _ in range(3000)} == {kind.name for kind in made}
    assert sum(BEHAVIOURS.values()) == 100 and set(SHARES) >= {"chat", "embeddings", "picture", "edit", "task"}
