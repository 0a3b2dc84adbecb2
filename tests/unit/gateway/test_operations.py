"""Operations' descriptions of themselves, and their registry."""

import dataclasses
from pathlib import Path

import pytest

from gateway.app import create_app
from gateway.errors import UnsupportedOption
from gateway.operations.edit_image import EditImage
from gateway.operations.embed import EmbedUsage
from gateway.operations.generate_image import GenerateImage
from gateway.operations.operation import ExpectedOutput, Operation, TaskOperation
from gateway.operations.registry import OPERATIONS, known_operations, require_operation
from gateway.operations.text import Delta, Usage
from gateway.settings import Settings


def test_operations_describe_themselves() -> None:
    expected = {
        "chat": ("/v1/chat/completions", 0, False),
        "complete": ("/v1/completions", None, False),
        "embed": ("/v1/embeddings", None, False),
        "generate_image": ("/v1/images/generations", 1, True),
        "edit_image": ("/v1/images/edits", 2, True),
        "generate_video": ("/v1/videos", None, True),
        "swap_face": ("/v1/images/face-swaps", None, True),
        "transcribe": ("/v1/audio/transcriptions", None, True),
        "speak": ("/v1/audio/speech", None, False),
    }
    described = {
        kind.operation: (kind.route, kind.node_type, issubclass(kind, TaskOperation))
        for kind in known_operations(expected)
    }
    assert list(described.items()) == list(expected.items())
    assert len({kind.phrase for kind in OPERATIONS.values()}) == len(OPERATIONS)


def test_routes_of_operations_exist(tmp_path: Path) -> None:
    paths = create_app(Settings(state=tmp_path)).openapi()["paths"]
    assert all("post" in paths[kind.route] for kind in OPERATIONS.values() if kind.route is not None)


def test_every_operation_is_registered() -> None:
    def beneath(kind: type) -> set[type]:
        return {kind}.union(*map(beneath, kind.__subclasses__()))

    named = {
        getattr(kind, "operation", None)
        for kind in beneath(Operation)
        if kind.__module__.startswith("gateway.operations.")
    }
    assert named - {None} == OPERATIONS.keys()


def test_events_that_count_tokens() -> None:
    deltas = {event for kind in OPERATIONS.values() for event in kind.delta_events}
    usages = {event for kind in OPERATIONS.values() for event in kind.usage_events}
    assert Delta in deltas and {Usage, EmbedUsage} <= usages
    for events, counts in ((deltas, "tokens"), (usages, "prompt_tokens")):
        assert all(counts in {field.name for field in dataclasses.fields(event)} for event in events)


def test_known_operations_come_in_the_order_of_preference() -> None:
    offered = {"edit_image", "of another version", "generate_image"}
    assert list(known_operations(offered)) == [GenerateImage, EditImage]
    assert list(known_operations(())) == []


def test_requests_for_other_operations_are_refused() -> None:
    require_operation("m", {"edit_image"}, EditImage)
    with pytest.raises(UnsupportedOption) as raised:
        require_operation("m", {"edit_image", "fly", "chat"}, GenerateImage)
    sentence = f"The model 'm' cannot {GenerateImage.phrase}; it can answer chats, {EditImage.phrase}, fly."
    assert (raised.value.message, raised.value.param) == (sentence, "model")


def test_expected_images_have_consecutive_seeds() -> None:
    request = GenerateImage(model="m", prompt="p", n=2, seed=7, output_format="webp")
    assert request.expected_outputs() == (
        ExpectedOutput(index=0, content_type="image/webp", facts={"seed": 7}),
        ExpectedOutput(index=1, content_type="image/webp", facts={"seed": 8}),
    )
    unseeded = dataclasses.replace(request, seed=None).expected_outputs()
    assert [output.facts for output in unseeded] == [{"seed": None}] * 2
