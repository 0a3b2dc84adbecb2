"""Videos as tensors, there and back, and the limits of models."""

import struct
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as pb

from gateway.errors import InvalidRequest, ModelFailed, UnsupportedOption
from gateway.model_card.video_limits import VideoLimits
from gateway.operations.generate_video import GenerateVideo, Video
from gateway.operations.operation import Output, Progress
from gateway.operations.recording import Attachment
from gateway.signatures import video
from gateway.triton.model_config import ModelConfig
from gateway.triton.tensors import InferResponse
from tests.unit.gateway.model_cards import card_of

ALL = {
    **dict.fromkeys(("prompt", "negative_prompt", "image", "frames"), "BYTES"),
    **dict.fromkeys(("width", "height", "steps", "num_frames", "fps", "quality"), "INT32"),
    **{"guidance_scale": "FP32", "strength": "FP32", "seed": "UINT64"},
}
PARAMETERS = {
    "sizes": "[[64, 32], [32, 64]]",
    "default_size": "[64, 32]",
    "max_steps": "50",
    "default_num_frames": "17",
    "max_num_frames": "33",
    "default_fps": "8",
    "max_fps": "24",
    "references": '["image", "frames"]',
}
FRAMES = struct.pack("<I2sI1s", 2, b"\x00\xff", 1, b"b")
MP4 = b"\0\0\0\x18ftypisom"


def config(*, without: tuple[str, ...] = (), **parameters: str) -> ModelConfig:
    inputs = {name: kind for name, kind in ALL.items() if name not in without}
    return ModelConfig("m", {**PARAMETERS, **parameters}, inputs, {"video": "BYTES"}, b"")


def request(**options: Any) -> GenerateVideo:
    return GenerateVideo(model="m", prompt="p", **options)


def encoded(asked: GenerateVideo, model: ModelConfig | None = None) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    tensors = video.encode(asked, card_of(model or config(), "generate_video"))
    return {tensor.name: (tensor.datatype, tensor.shape, tensor.data) for tensor in tensors}


def test_tensors_follow_the_contract() -> None:
    options = {"width": 64, "height": 32, "num_frames": 5, "fps": 8, "seconds": 0.5, "steps": 4, "quality": 80}
    asked = request(**options, negative_prompt="not", guidance_scale=1.5, seed=2**64 - 1, strength=0.5, frames=FRAMES)
    tensors = encoded(asked)
    assert {name: kind for name, (kind, _, _) in tensors.items()} == {n: k for n, k in ALL.items() if n != "image"}
    assert tensors["frames"] == ("BYTES", (2,), FRAMES)
    assert tensors["num_frames"] == ("INT32", (1,), struct.pack("<i", 5))
    assert encoded(request(image=b"i")) == {
        "prompt": ("BYTES", (1,), b"\1\0\0\0p"),
        "image": ("BYTES", (1,), b"\1\0\0\0i"),
    }


def test_frames_that_are_not_in_memory_are_checked_as_an_option() -> None:
    class OnDisk(Attachment):
        def chunks(self) -> AsyncGenerator[bytes]:
            raise AssertionError("they are not read")

    assert encoded(request(frames=OnDisk()))["frames"] == ("BYTES", (0,), b"")
    with pytest.raises(UnsupportedOption, match="does not change another video"):
        encoded(request(frames=OnDisk()), config(references="[]"))
    with pytest.raises(InvalidRequest, match="damaged"):
        encoded(request(frames=FRAMES[:-1]))


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"width": 63, "height": 32}, "size", "does not generate videos of 63x32; supported: 64x32, 32x64"),
        ({"num_frames": 37}, "seconds", "up to 33 frames, 4.125 seconds at 8 frames a second"),
        ({"num_frames": 37, "fps": 16}, "seconds", "2.0625 seconds at 16"),
        ({"fps": 25}, "fps", "at most 24"),
        ({"steps": 51}, "steps", "at most 50"),
        ({"image": b"i", "frames": FRAMES}, "input_reference", "either"),
    ],
)
def test_what_a_model_refuses(options: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(UnsupportedOption, match=message) as refused:
        video.SIGNATURE.codecs["generate_video"].open(request(**options), card_of(config(), "generate_video"))
    assert refused.value.param == param


@pytest.mark.parametrize("name", ["image", "frames"])
def test_references_that_a_model_does_not_take(name: str) -> None:
    asked = request(**{name: b"i" if name == "image" else FRAMES})
    with pytest.raises(UnsupportedOption, match="does not"):
        encoded(asked, config(references="[]"))
    with pytest.raises(UnsupportedOption, match="does not support 'input_reference'"):
        encoded(asked, config(without=(name,)))


@pytest.mark.parametrize(
    ("seconds", "fps", "count"),
    [
        (2, 8, 16),
        (5, 16, 80),
        (0.01, 8, 1),
        (0.19, 8, 2),
        (0.3125, 8, 3),
        (1.3, 10, 13),
        (2.125, 8, 17),
        (1 / 3, 24, 8),
    ],
)
def test_numbers_of_frames(seconds: float, fps: int, count: int) -> None:
    limits = VideoLimits()
    assert limits.num_frames(seconds, fps) == count
    assert limits.num_frames(round(limits.seconds(count, fps), 6), fps) == count


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"default_num_frames": "34"}, "not a supported number"),
        ({"max_num_frames": "9"}, "not a supported number"),
        ({"default_fps": "0"}, "positive integer"),
        ({"references": '["sound"]'}, "references"),
        ({"requires_image": "yes"}, "requires_image is 'yes'"),
        ({"requires_image": "true", "references": '["frames"]'}, "references has no image"),
        ({"default_size": "[8, 8]"}, "not a supported size"),
    ],
)
def test_parameters_that_are_wrong(parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        card_of(config(**parameters), "generate_video")


@pytest.mark.parametrize("name", ["default_size", "default_fps", "default_num_frames"])
def test_parameters_that_a_model_must_have(name: str) -> None:
    model = config()
    parameters = {key: value for key, value in model.parameters.items() if key != name}
    with pytest.raises(KeyError, match=name):
        card_of(ModelConfig("m", parameters, model.inputs, model.outputs, b""), "generate_video")


def response(**outputs: tuple[str, bytes]) -> InferResponse:
    message = pb.ModelInferResponse()
    for name, (kind, raw) in outputs.items():
        message.outputs.add(name=name, datatype=kind, shape=[1])
        message.raw_output_contents.append(raw)
    return InferResponse(message)


def of_file(data: bytes, **numbers: int) -> InferResponse:
    found = {name: ("INT32", struct.pack("<i", value)) for name, value in numbers.items()}
    return response(video=("BYTES", struct.pack("<I", len(data)) + data), seed=("UINT64", b"\7" + bytes(7)), **found)


async def events(asked: GenerateVideo, *responses: InferResponse) -> list[Any]:
    async def arriving() -> AsyncGenerator[InferResponse]:
        for one in responses:
            yield one

    return [event async for event in video.decode(asked, arriving(), card_of(config(), "generate_video"))]


async def test_responses_become_events() -> None:
    preview = response(preview=("BYTES", b"\1\0\0\0w"), partial=("INT32", bytes(4)))
    halves = [response(progress=("FP32", struct.pack("<f", part))) for part in (0.5, float("nan"), 7.0)]
    found = await events(request(), *halves, preview, of_file(MP4, width=64, height=32, num_frames=17, fps=8))
    assert found[0] == Progress(0.5) and [event.fraction for event in found[1:3]] == [0.0, 1.0]
    assert found[3:] == [Video(data=MP4, width=64, height=32, num_frames=17, fps=8, seed=7)]


@pytest.mark.parametrize(
    ("responses", "message"),
    [((), "no video"), ((of_file(b"GIF89a..."),), "not an MP4"), ((of_file(MP4), of_file(MP4)), "more than one")],
)
async def test_responses_that_are_wrong(responses: tuple[InferResponse, ...], message: str) -> None:
    with pytest.raises(ModelFailed, match=message):
        await events(request(), *responses)


async def test_a_task_has_the_facts_of_the_video() -> None:
    asked = request(width=64, height=32, num_frames=17, fps=8, seed=5)

    async def stream(found: Video) -> AsyncGenerator[Any]:
        yield Progress(0.5)
        yield found

    facts = {"width": 64, "height": 32, "num_frames": 17, "fps": 8, "seed": 5}
    (expected,) = asked.expected_outputs()
    assert (expected.index, expected.content_type, expected.facts) == (0, "video/mp4", facts)
    told = [event async for event in asked.task_events(stream(Video(data=MP4)))]
    assert told == [Progress(0.5), Output(index=0, content_type="video/mp4", facts=facts, data=MP4)]
    changed = Video(data=MP4, num_frames=13, seed=0)
    output: Any
    (_, output) = [event async for event in asked.task_events(stream(changed))]
    assert output.facts == {**facts, "num_frames": 13, "seed": 0}


def test_errors_name_the_fields_of_callers() -> None:
    named = {name: video.explain(InvalidRequest("m", param=name)).param for name in ("num_frames", "image", "seed")}
    assert named == {"num_frames": "seconds", "image": "input_reference", "seed": "seed"}
