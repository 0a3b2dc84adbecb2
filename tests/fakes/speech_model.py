"""Scripted speech models: a tone for each sentence, as long as the sentence."""

import asyncio
import re
from collections.abc import AsyncIterator

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from tests.fakes.scripted_model import Fail, ScriptedModel, SpeakSentences
from tests.fakes.triton_messages import InferCall

SECONDS_PER_CHARACTER = 0.02
FRAMES_PER_SECOND = 80


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) +", text.strip())


async def speak(
    model: ScriptedModel, call: InferCall, step: SpeakSentences
) -> AsyncIterator[pb.ModelInferResponse | Fail]:
    """Yield a response for each sentence, then an empty one with the final flag."""
    text = call.tensors["text"][0].decode()
    if not any(character.isalnum() for character in text):
        yield Fail(f'[invalid_value:text] There is nothing to say in "{text}".')
        return
    if chinese := re.findall(r"[\u4e00-\u9fff]+", text):
        yield Fail(f'[invalid_value:text] The voice Heart cannot speak Chinese characters ("{chinese[0]}").')
        return
    speed = float(call.tensors.get("speed", [1.0])[0])
    for sentence in sentences(text):
        await asyncio.sleep(step.pause)
        count = int(len(sentence) * SECONDS_PER_CHARACTER / speed * step.rate)
        tone = (8000 * np.sin(np.arange(count) * 2 * np.pi * 440 / step.rate)).astype("<i2")
        frames = int(count / step.rate * FRAMES_PER_SECOND)
        yield _response(model, call, tone.tobytes(), step.rate, len(sentence), frames)
        if step.fails_later:
            yield Fail("[engine_failed] The engine stopped.")
            return
        if step.hangs_later:
            await asyncio.Event().wait()
    final = pb.ModelInferResponse(model_name=model.name, model_version="1", id=call.id)
    final.parameters["triton_final_response"].bool_param = True
    yield final


def _response(
    model: ScriptedModel, call: InferCall, samples: bytes, rate: int, read: int, frames: int
) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name=model.name, model_version="1", id=call.id)
    response.parameters["triton_final_response"].bool_param = False
    for name, datatype, shape, raw in (
        ("audio", "INT16", [len(samples) // 2], samples),
        ("sample_rate", "INT32", [1], np.array([rate], "<i4").tobytes()),
        ("num_input_tokens", "UINT32", [1], np.array([read], "<u4").tobytes()),
        ("num_output_tokens", "UINT32", [1], np.array([frames], "<u4").tobytes()),
    ):
        response.outputs.add(name=name, datatype=datatype, shape=shape)
        response.raw_output_contents.append(raw)
    return response
