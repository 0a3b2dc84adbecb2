"""Requests and responses of scripted models, as messages of Triton's protocol."""

import asyncio
import itertools
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from tests.fakes.scripted_model import (
    EMBEDDING_INPUTS,
    IMAGE_INPUTS,
    INPUTS,
    LISTENING_INPUTS,
    SAMPLING_PARAMETERS,
    TTS_INPUTS,
    UPSCALING_INPUTS,
    VIDEO_INPUTS,
    Echo,
    IfSeed,
    Pause,
    RawOutputs,
    Say,
    ScriptedModel,
)


def wire_type(kind: int) -> str:
    return "BYTES" if kind == config_pb.TYPE_STRING else config_pb.DataType.Name(kind).removeprefix("TYPE_")


_WIRE_TYPES = {
    name: wire_type(kind)
    for inputs in (INPUTS, LISTENING_INPUTS, TTS_INPUTS, EMBEDDING_INPUTS, IMAGE_INPUTS, VIDEO_INPUTS, UPSCALING_INPUTS)
    for name, kind, _ in inputs
}


@dataclass(slots=True)
class InferCall:
    """One request, and the time when its caller cancelled it (`time.monotonic`), if it did."""

    model: str
    id: str
    metadata: dict[str, str]
    parameters: dict[str, Any]
    tensors: dict[str, list[Any]]
    cancelled_at: float | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def prompt(self) -> str:
        if "prompt" in self.tensors:
            return str(self.tensors["prompt"][0].decode())
        if not {"audio", "text", "token_counts", "scale"}.isdisjoint(self.tensors):
            return ""
        if "token_ids" in self.tensors:
            return f"<{','.join(map(str, self.tensors['token_ids']))}>"
        return str(self.tensors["text_input"][0].decode())

    @property
    def sampling(self) -> dict[str, Any]:
        return dict(json.loads(self.tensors.get("sampling_parameters", [b"{}"])[0]))

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.tensors.get(name, [default])[0])


def _joined(responses: list[Say], name: str) -> list[str]:
    """Return, for each choice, the attribute `name` of all responses so far, joined."""
    rows = [(value,) if isinstance(value, str) else value for value in (getattr(say, name) for say in responses)]
    return ["".join(parts) for parts in itertools.zip_longest(*rows, fillvalue="")]


def is_finished(responses: list[Say]) -> bool:
    ends = _joined(responses, "finish")
    return all(ends) and len(ends) == len(_joined(responses, "text"))


def expand_script(script, call: InferCall):
    prompt = call.prompt
    for step in script:
        if isinstance(step, IfSeed):
            if call.sampling.get("seed") != step.seed:
                continue
            step = step.step
        if not isinstance(step, Echo):
            yield step
            continue
        for at in range(0, len(prompt), step.size):
            yield Say(prompt[at : at + step.size], "stop" if at + step.size >= len(prompt) else "")
            yield Pause(step.pause)


_NUMBERS = {"BOOL": np.bool_, "INT32": np.int32, "FP32": np.float32, "UINT64": np.uint64}
_MAX_LISTED = 100_000
_LISTS = ("token_ids", "literal_spans", "image", "mask", "frames", "audio", "text", "token_counts")


def parse_tensors(request: pb.ModelInferRequest) -> dict[str, list[Any]]:
    def values(kind: str, raw: bytes) -> Any:
        if kind == "BYTES":
            return list(deserialize_bytes_tensor(raw))
        array = np.frombuffer(raw, _NUMBERS[kind])
        return array if array.size > _MAX_LISTED else list(array)  # a list of long sound would take seconds

    return {
        tensor.name: values(tensor.datatype, raw)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


def request_error(request: pb.ModelInferRequest, call: InferCall, adapters: Collection[str] = ()) -> str | None:
    """Return the error of Triton or of the backend for an invalid request of this signature.

    `adapters` are the LoRA adapters of the model.
    """
    for tensor in request.inputs:
        if tensor.name not in _WIRE_TYPES:
            return f"[request id: {call.id}] unexpected inference input '{tensor.name}' for model '{call.model}'"
        if tensor.datatype != _WIRE_TYPES[tensor.name]:
            return f"inference input '{tensor.name}' data-type is '{tensor.datatype}', model '{call.model}' disagrees"
        if tensor.name not in _LISTS and list(tensor.shape) != [1]:
            return f"unexpected shape for input '{tensor.name}'. Expected [1], got {list(tensor.shape)}"
    if "prompt" in call.tensors or "scale" in call.tensors:
        return None
    if "dimensions" in call.tensors:
        return "[unsupported_option:dimensions] The vectors of this model have 2 numbers."
    if "audio" in call.tensors or "text" in call.tensors or "token_counts" in call.tensors:
        return None
    if ("text_input" in call.tensors) == ("token_ids" in call.tensors):
        return "[invalid_value:text_input] There is neither text_input nor token_ids."
    if "lora_name" in call.sampling and adapters and call.sampling["lora_name"] not in adapters:
        return f"[invalid_value:lora_name] This model has no adapter {call.sampling['lora_name']!r}."
    if unknown := set(call.sampling) - SAMPLING_PARAMETERS - ({"lora_name"} if adapters else set()):
        return f"[unsupported_option:sampling_parameters] There is no option {sorted(unknown)[0]}."
    return None


def model_error(model: ScriptedModel, call: InferCall) -> str | None:
    """Return the error for a text that is too long, and those of vLLM that our backend does not have."""
    if model.max_characters and not call.tensors.keys() & {"truncate", "truncate_prompt_tokens"}:
        sizes = [len(text.decode()) for text in call.tensors.get("text", [])] or call.tensors.get("token_counts", [])
        for i, size in enumerate(sizes):
            if size > model.max_characters:
                most = model.max_characters
                return f"[context_length_exceeded:text] Input {i} has {size} tokens; the model takes {most}."
    if "token_ids" not in model.missing_inputs:
        return None
    if call.sampling.get("max_tokens", 1) < 1:
        return f"max_tokens must be at least 1, got {call.sampling['max_tokens']}."
    if call.sampling.get("top_p", 1) <= 0:
        return f"top_p must be in (0, 1], got {call.sampling['top_p']}."
    return None if call.prompt else "The decoder prompt cannot be empty"


def embedding_response(model: ScriptedModel, call: InferCall) -> pb.ModelInferResponse:
    """Return two numbers for each text, or list of token ids, and the number of tokens, one for each character."""
    cut = next(iter(call.tensors.get("truncate_prompt_tokens", [model.max_characters or 2**31])))
    texts = [text.decode()[:cut] for text in call.tensors.get("text", [])]
    rows = [[len(text), text.count("e")] for text in texts] or [[min(n, cut), 0] for n in call.tensors["token_counts"]]
    response = pb.ModelInferResponse(model_name=model.name, model_version="1", id=call.id)
    response.parameters["triton_final_response"].bool_param = True
    response.outputs.add(name="embedding", datatype="FP32", shape=[len(rows), 2])
    response.raw_output_contents.append(np.array(rows, np.float32).tobytes())
    response.outputs.add(name="num_tokens", datatype="INT32", shape=[len(rows)])
    response.raw_output_contents.append(np.array([row[0] for row in rows], np.int32).tobytes())
    return response


def raw_response(model: ScriptedModel, call: InferCall, step: RawOutputs) -> pb.ModelInferResponse:
    """Return a final response with raw outputs."""
    response = pb.ModelInferResponse(model_name=model.name, model_version="1", id=call.id)
    response.parameters["triton_final_response"].bool_param = True
    for name, datatype, shape, raw in step.outputs:
        response.outputs.add(name=name, datatype=datatype, shape=shape)
        response.raw_output_contents.append(raw)
    return response


def text_response(model: ScriptedModel, call: InferCall, responses: list[Say], final: bool) -> pb.ModelInferResponse:
    """Return the outputs that `call` requests, over all `responses`."""
    texts, ends = _joined(responses, "text"), _joined(responses, "finish")
    ends += [""] * (len(texts) - len(ends))
    # A script with one choice gives the same text to each of several choices.
    several = call.sampling.get("n", 1) if len(texts) == 1 else 1
    texts, ends = texts * several, ends * several
    if not model.is_transcription_model and not call.flag("exclude_input_in_output", call.flag("stream")):
        texts = [call.prompt + text for text in texts]
    response = pb.ModelInferResponse(model_name=model.name, model_version="1", id=call.id)
    response.parameters["triton_final_response"].bool_param = final

    def add(name: str, kind: str, values: list[Any]) -> None:
        response.outputs.add(name=name, datatype=kind, shape=[len(values)])
        if kind == "BYTES":
            raw = serialize_byte_tensor(np.array([value.encode() for value in values], dtype=object)).item()
        else:
            raw = np.array(values, np.uint32).tobytes()
        response.raw_output_contents.append(raw)

    add("text" if model.is_transcription_model else "text_output", "BYTES", texts)
    if call.flag("return_finish_reason"):
        add("finish_reason", "BYTES", [end or "None" for end in ends])
    if call.flag("return_logprobs"):
        add("logprobs", "BYTES", ["".join(say.logprobs for say in responses)] * several)
    if call.flag("return_num_input_tokens"):
        add("num_input_tokens", "UINT32", [model.num_input_tokens])
    if call.flag("return_num_output_tokens"):
        add("num_output_tokens", "UINT32", [sum(say.tokens for say in responses) * several])
    return response
