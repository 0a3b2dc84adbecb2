"""The valid and invalid requests of the soak, and the choice among them."""

import json
import random
from collections import Counter

import pytest
from PIL import Image

from benchmarks.soak import invalid_requests, workloads
from benchmarks.soak.load import BEHAVIOURS, SHARES, MixedLoad

WORDS = [" alpha", " beta", " gamma", " delta"]


@pytest.fixture(scope="module")
def all_workloads() -> list[workloads.Workload]:
    return workloads.make_workloads(WORDS, random.Random(17))


def test_the_same_seed_makes_the_same_requests(all_workloads: list[workloads.Workload]) -> None:
    again = workloads.make_workloads(WORDS, random.Random(17))
    assert [(workload.name, workload.path, workload.body) for workload in all_workloads] == [
        (workload.name, workload.path, workload.body) for workload in again
    ]
    assert [workload.body for workload in all_workloads] != [
        workload.body for workload in workloads.make_workloads(WORDS, random.Random(18))
    ]


def test_every_type_of_request_is_there(all_workloads: list[workloads.Workload]) -> None:
    counts = Counter(workload.name for workload in all_workloads)
    for name in ("chat", "structured chat"):
        assert counts[f"{name}, streamed"] == counts[f"{name}, whole"] == counts[f"{name}, platform"] > 5
    assert counts["embeddings, floats"] == counts["embeddings, base64"] == workloads.NUM_TEXTS
    for name in ("images", "images, streamed", "image, resized", "edit", "task"):
        assert counts[name] == workloads.NUM_IMAGES


def test_workloads_with_the_same_answer_differ_in_delivery_only(all_workloads: list[workloads.Workload]) -> None:
    pairs = [
        (workload, all_workloads[workload.same_answer_as]) for workload in all_workloads if workload.same_answer_as >= 0
    ]
    assert len(pairs) > 50
    for workload, other in pairs:
        assert other.same_answer_as < 0
        body, other_body = json.loads(workload.body), json.loads(other.body)
        for name in ("stream", "partial_images", "encoding_format"):
            body.pop(name, None), other_body.pop(name, None)
        assert body == other_body and (workload.path, workload.body) != (other.path, other.body)


def test_chats_are_greedy_and_use_every_schema(all_workloads: list[workloads.Workload]) -> None:
    chats = [json.loads(workload.body) for workload in all_workloads if "chat" in workload.name]
    assert all(body["temperature"] == 0 and 4 <= body["max_tokens"] <= 90 for body in chats)
    schemas = [body["response_format"]["json_schema"]["schema"] for body in chats if "response_format" in body]
    assert all(schema in schemas for schema in workloads.SCHEMAS)


def test_sizes_that_the_model_lacks_are_requested_from_its_alias(all_workloads: list[workloads.Workload]) -> None:
    bodies = [json.loads(workload.body) for workload in all_workloads if workload.name == "image, resized"]
    assert {body["model"] for body in bodies} == {workloads.RESIZED_MODEL}
    sizes = [tuple(map(int, body["size"].split("x"))) for body in bodies]
    assert len(set(sizes)) == len(sizes) and all(64 <= side <= 1024 for size in sizes for side in size)


def test_a_multipart_form_can_be_parsed() -> None:
    from email import message_from_bytes
    from email.message import Message

    written, content_type = workloads.multipart({"prompt": "a star"}, {"image": workloads.drawing(1)})
    parts = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + written).get_payload()
    assert isinstance(parts, list)
    fields = {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in parts
        if isinstance(part, Message)
    }
    assert fields == {"prompt": b"a star", "image": workloads.drawing(1)}


def test_input_images_have_the_size_of_the_model() -> None:
    import io

    images = [Image.open(io.BytesIO(workloads.drawing(number))) for number in range(3)]
    assert {(image.format, image.size) for image in images} == {("PNG", workloads.SIZE)}
    assert len({image.tobytes() for image in images}) == 3


def test_invalid_requests_exist_in_every_dialect_and_expect_a_refusal() -> None:
    cases = invalid_requests.make_invalid_requests()
    assert all(400 <= status < 500 for case in cases for status in case.statuses)
    for path in ("/v1/chat", "/v1/completions", "/v1/embeddings", "/v1/images/edits", "/tritonic/v1/images/gen"):
        assert sum(case.path.startswith(path) for case in cases) >= 5, path
    large = [case for case in cases if case.statuses == (413,)]
    assert large and all(len(case.body) > invalid_requests.MAX_BODY_BYTES for case in large)
    assert all(len(case.body) <= invalid_requests.MAX_BODY_BYTES for case in cases if case not in large)


def test_invalid_json_requests_are_valid_json_unless_the_syntax_is_the_error() -> None:
    broken = ("no JSON", "no body", "no UTF-8", "nested too deep")
    for case in invalid_requests.make_invalid_requests():
        if case.content_type == "application/json" and case.body:
            try:
                json.loads(case.body)
            except (ValueError, RecursionError):
                assert case.title in broken, case.title


def test_the_chosen_workload_suits_the_behaviour(all_workloads: list[workloads.Workload]) -> None:
    load = MixedLoad(all_workloads, invalid_requests.make_invalid_requests(), random.Random(3))
    sampled = {all_workloads[load.pick("sampled")].name for _ in range(200)}
    assert sampled == {"chat, streamed"}
    assert {all_workloads[load.pick("rate limited")].name for _ in range(200)} == {
        "embeddings, floats",
        "embeddings, base64",
    }
    assert {all_workloads[load.pick("completed")].name for _ in range(3000)} == {
        workload.name for workload in all_workloads
    }
    assert sum(BEHAVIOURS.values()) == 100 and set(SHARES) >= {"chat", "embeddings", "image", "edit", "task"}
