"""Requests to a vision model: over Triton's gRPC, and in transformers with its own preprocessing."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient

from tests.fakes.tiny_smolvlm import expansion


def make_image(width: int, height: int, seed: int) -> Image.Image:
    """Make an image of smooth colours with some noise."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (7, 9, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.int64)
    noisy = smooth + random.integers(-20, 21, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """Encode an image as a base64 file for the tensor `image`."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return base64.b64encode(file.getvalue())


@dataclass(frozen=True, slots=True)
class VisionResponse:
    """A response of the model."""

    tokens: list[int]
    text: str
    finish_reason: str
    num_input_tokens: int


class VisionClient:
    """Sends requests to a model at a gRPC address."""

    def __init__(self, url: str, model: str) -> None:
        self._url, self._model = url, model

    async def __call__(
        self, prompt: str | list[int], images: list[bytes] | None = None, stream: bool = True, **sampling: Any
    ) -> VisionResponse:
        """Return the greedy response. Raises `RuntimeError` with the message of Triton."""
        options = {"temperature": 0, "max_tokens": 12, "logprobs": 0, **sampling}
        inputs = [
            _strings("text_input", [prompt.encode()]) if isinstance(prompt, str) else _tokens(prompt),
            _strings("sampling_parameters", [json.dumps(options).encode()]),
            *([_strings("image", images)] if images is not None else []),
            *(
                _flag(name, value)
                for name, value in {
                    "stream": stream,
                    "exclude_input_in_output": True,
                    "return_finish_reason": True,
                    "return_logprobs": True,
                    "return_num_input_tokens": True,
                }.items()
            ),
        ]
        names = ("text_output", "finish_reason", "logprobs", "num_input_tokens")

        async def once() -> Any:
            outputs = [InferRequestedOutput(name) for name in names]
            yield {"model_name": self._model, "inputs": inputs, "outputs": outputs, "enable_empty_final_response": True}

        tokens, text, reason, count = [], "", "", 0
        client = InferenceServerClient(self._url)
        try:
            async for result, error in client.stream_infer(once()):
                if error is not None:
                    raise RuntimeError(str(error))
                if result.as_numpy("text_output") is not None and result.as_numpy("text_output").size:
                    text += result.as_numpy("text_output")[0].decode()
                    reason = result.as_numpy("finish_reason")[0].decode() or reason
                    count = int(result.as_numpy("num_input_tokens")[0])
                    entries = json.loads(result.as_numpy("logprobs")[0] or b"[]")
                    tokens += [int(next(iter(entry))) for entry in entries if entry]
                if result.get_response().parameters["triton_final_response"].bool_param:
                    break
        finally:
            await client.close()
        return VisionResponse(tokens, text, reason, count)


class ReferenceModel:
    """The checkpoint in transformers, in fp32, with the image processor of transformers."""

    def __init__(self, folder: Path, tokenizer: Any, **preprocessor: Any) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast
        from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

        self._torch = torch
        self._model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
        read = json.loads((folder / "preprocessor_config.json").read_bytes()) | preprocessor
        self._processor = SmolVLMImageProcessorPil(**read)
        self._template = json.loads((folder / "chat_template.json").read_bytes())["chat_template"]

    def render(self, *turns: list[str]) -> str:
        """Render a chat whose turns alternate between user and assistant; each is a list of texts and `<image>`."""
        messages = [
            {
                "role": "assistant" if number % 2 else "user",
                "content": [
                    {"type": "image"} if part == "<image>" else {"type": "text", "text": part} for part in turn
                ],
            }
            for number, turn in enumerate(turns)
        ]
        return str(
            self.tokenizer.apply_chat_template(
                messages, chat_template=self._template, add_generation_prompt=True, tokenize=False
            )
        )

    def tokenize(self, prompt: str, images: list[Image.Image]) -> tuple[Any, dict[str, Any]]:
        """Return the tokens of a prompt, int64[1, n], and the other inputs of the model."""
        image_inputs: dict[str, Any] = {}
        if images:
            processed = self._processor([images], return_tensors="pt", return_row_col_info=True)
            parts = prompt.split("<image>")
            prompt = parts[0]
            for rows, columns, part in zip(processed["rows"][0], processed["cols"][0], parts[1:], strict=True):
                prompt += expansion(rows, columns) + part
            image_inputs = {name: processed[name] for name in ("pixel_values", "pixel_attention_mask")}
        ids = self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        return ids["input_ids"], image_inputs

    def generate(self, prompt: str, images: list[Image.Image], max_tokens: int = 12) -> VisionResponse:
        """Return the greedy response of transformers."""
        ids, image_inputs = self.tokenize(prompt, images)
        with self._torch.inference_mode():
            whole = self._model.generate(input_ids=ids, **image_inputs, do_sample=False, max_new_tokens=max_tokens)[
                0
            ].tolist()
        count = ids.shape[1]
        tokens = whole[count:]
        stopped = tokens[-1] == self._model.config.text_config.eos_token_id
        tokens = tokens[:-1] if stopped else tokens
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return VisionResponse(tokens, text, "stop" if stopped else "length", count)


def _strings(name: str, values: list[bytes]) -> InferInput:
    tensor = InferInput(name, [len(values)], "BYTES")
    tensor.set_data_from_numpy(np.array(values, np.object_))
    return tensor


def _tokens(ids: list[int]) -> InferInput:
    tensor = InferInput("token_ids", [len(ids)], "INT32")
    tensor.set_data_from_numpy(np.array(ids, np.int32))
    return tensor


def _flag(name: str, value: bool) -> InferInput:
    tensor = InferInput(name, [1], "BOOL")
    tensor.set_data_from_numpy(np.array([value]))
    return tensor
