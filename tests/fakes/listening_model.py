"""A model that transcribes synthetic recordings as docs/architecture.md describes: utterances of sound, and silence."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import serialize_byte_tensor

from tests.fakes.scripted_model import Fail, Listen, ScriptedModel
from tests.fakes.triton_messages import InferCall

RATE = 16_000
FRAME = 160
LOUD = 0.02
PROMPT_TOKENS = 4
GAP_FRAMES = 30
"""Frames of a hundredth of a second. Silence that is shorter does not end an utterance."""


def utterances(samples: Any) -> list[tuple[float, float]]:
    """Return the start and end in seconds of each utterance."""
    frames = np.abs(samples[: len(samples) // FRAME * FRAME]).reshape(-1, FRAME).max(axis=1) > LOUD
    found: list[list[int]] = []
    for at in np.flatnonzero(frames):
        if found and at - found[-1][1] <= GAP_FRAMES:
            found[-1][1] = int(at) + 1
        else:
            found.append([int(at), int(at) + 1])
    return [(start / 100, end / 100) for start, end in found]


async def transcribe(
    model: ScriptedModel, call: InferCall, step: Listen
) -> AsyncIterator[pb.ModelInferResponse | Fail]:
    """Yield a response for each utterance, and the last one."""
    samples = np.array(call.tensors["audio"], np.float32)
    language = call.tensors.get("language", [b"en"])[0].decode()
    seconds = len(samples) / RATE
    most = float(model.parameters.get("max_seconds") or 600)
    if seconds > most:
        yield Fail(f"[invalid_value:audio] The sound has {seconds:g} seconds; the model takes {most:g}.")
        return
    found, consumed = utterances(samples), seconds
    if call.flag("more") and found and found[-1][1] > seconds - GAP_FRAMES / 100:
        consumed = found.pop()[0]
    timestamps = call.tensors.get("timestamps", [b"none"])[0]
    translated = call.tensors.get("task", [b"transcribe"])[0] == b"translate"
    await asyncio.sleep(step.pause * seconds)
    for start, end in found:
        text = f" {'t' if translated else 'u'}{round(10 * (end - start))}"
        outputs: dict[str, tuple[str, Any]] = {
            "text": ("BYTES", text),
            "language": ("BYTES", language),
            "token_ids": ("INT32", [50364, 1, 2, 50364 + round(50 * (end - start))]),
            "avg_logprob": ("FP32", [-0.25]),
            "no_speech_prob": ("FP32", [0.125]),
            "compression_ratio": ("FP32", [0.75]),
            "temperature": ("FP32", list(call.tensors.get("temperature", [0.0]))),
            "num_input_tokens": ("UINT32", [round(50 * (end - start))]),
            "num_audio_tokens": ("UINT32", [max(0, round(50 * (end - start)) - PROMPT_TOKENS)]),
            "num_output_tokens": ("UINT32", [4]),
        }
        if timestamps != b"none":
            outputs |= {"start": ("FP32", [start]), "end": ("FP32", [end])}
        if timestamps == b"word":
            word = {"word": text, "start": start, "end": end, "probability": 0.5}
            outputs["words"] = ("BYTES", json.dumps([word]))
        if call.flag("return_logprobs"):
            token = {"token": text, "bytes": list(text.encode()), "logprob": -0.25}
            outputs["logprobs"] = ("BYTES", json.dumps([token]))
        yield _response(model, call, outputs)
    last: dict[str, tuple[str, Any]] = {"consumed": ("FP32", [consumed]), "num_output_tokens": ("UINT32", [1])}
    if not found:
        last |= {
            "language": ("BYTES", language if "language" in call.tensors else ""),
            "num_input_tokens": ("UINT32", [0]),
            "num_audio_tokens": ("UINT32", [0]),
        }
    yield _response(model, call, last, final=True)


_KINDS = {"INT32": np.int32, "UINT32": np.uint32, "FP32": np.float32}


def _response(
    model: ScriptedModel, call: InferCall, outputs: dict[str, tuple[str, Any]], *, final: bool = False
) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name=model.name, model_version="1", id=call.id)
    response.parameters["triton_final_response"].bool_param = final
    for name, (kind, value) in outputs.items():
        if kind == "BYTES":
            shape, raw = [1], serialize_byte_tensor(np.array([value.encode()], object)).item()
        else:
            shape, raw = [len(value)], np.array(value, _KINDS[kind]).tobytes()
        response.outputs.add(name=name, datatype=kind, shape=shape)
        response.raw_output_contents.append(raw)
    return response
