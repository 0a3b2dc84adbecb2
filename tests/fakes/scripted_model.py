"""Scripted models: their responses and configurations, as data that `tests.fakes.triton` plays."""

import json
from dataclasses import dataclass, field

import grpc
from tritonclient.grpc import model_config_pb2 as config_pb

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}<tool_call>{{ call['function']['name'] }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SAMPLING_PARAMETERS = frozenset(
    [
        *("max_tokens", "temperature", "top_p", "top_k", "min_p", "stop", "stop_token_ids", "seed", "n"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "ignore_eos", "min_tokens"),
        *("logit_bias", "skip_special_tokens", "logprobs", "prompt_logprobs", "structured_outputs"),
    ]
)


@dataclass(frozen=True, slots=True)
class Say:
    """One response: the text added to each choice (a string: the same to all), and the finish reason, if any."""

    text: str | tuple[str, ...]
    finish: str | tuple[str, ...] = ""
    tokens: int = 1
    logprobs: str = ""
    """JSON: the log probabilities of the tokens of the only choice, sent if they were requested."""


@dataclass(frozen=True, slots=True)
class Echo:
    """Responses with the prompt, `size` characters and one token each."""

    size: int = 16
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds of silence. None: for ever."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """The request fails with this status and message."""

    message: str
    status: grpc.StatusCode = grpc.StatusCode.INTERNAL


@dataclass(frozen=True, slots=True)
class Close:
    """The stream ends with status OK, but without a response with the final flag."""


@dataclass(frozen=True, slots=True)
class RawOutputs:
    """The final response, with raw outputs: name, datatype, shape and data."""

    outputs: tuple[tuple[str, str, tuple[int, ...], bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class IfSeed:
    """A step for requests with this seed only."""

    seed: int
    step: "Step"


@dataclass(frozen=True, slots=True)
class DrawImages:
    """All requested images, after `steps` steps with a pause before each.

    `num_missing` images are never sent. With `is_garbled`, the data are no images.
    """

    steps: int = 4
    pause: float = 0.0
    num_missing: int = 0
    is_garbled: bool = False


@dataclass(frozen=True, slots=True)
class FilmVideo:
    """The requested video, after `steps` steps with a pause before each (`tests.fakes.video_model`).

    With `is_garbled`, the data are no video; with `num_videos`, another number than one is sent. `padding` is the
    number of bytes that make the file larger.
    """

    steps: int = 4
    pause: float = 0.0
    is_garbled: bool = False
    num_videos: int = 1
    padding: int = 0


@dataclass(frozen=True, slots=True)
class EnlargePicture:
    """The picture of the request, upscaled, after `steps` steps with a pause before each.

    With `is_garbled`, the data are no picture; with `num_pictures`, another number than one is sent.
    """

    steps: int = 4
    pause: float = 0.0
    is_garbled: bool = False
    num_pictures: int = 1


@dataclass(frozen=True, slots=True)
class SpeakSentences:
    """A tone for each sentence of the text, with `rate` samples a second, and a pause before each.

    With `fails_later`, the model fails after the first one, and with `hangs_later` it never speaks the second.
    """

    pause: float = 0.0
    rate: int = 24_000
    fails_later: bool = False
    hangs_later: bool = False


@dataclass(frozen=True, slots=True)
class Listen:
    """A segment for each utterance of the recording: a stretch of sound that is louder than silence.

    The text of an utterance has its length in tenths of a second, as in ` u12`. `pause` is the time in seconds for each
    second of sound.
    """

    pause: float = 0.0


Step = (
    SpeakSentences
    | Say
    | Echo
    | Pause
    | Fail
    | Close
    | DrawImages
    | FilmVideo
    | EnlargePicture
    | RawOutputs
    | IfSeed
    | Listen
)
HELLO = (Say("\n\nHello"), Say(" there"), Say(", how may I assist you today?", "stop", tokens=7))


@dataclass(frozen=True, slots=True)
class ScriptedModel:
    """A scripted model. `parameters` replace the default ones. None removes one."""

    name: str
    script: tuple[Step, ...] = HELLO
    num_input_tokens: int = 9
    sends_empty_final: bool = False
    """The final flag is on a response of its own, which Triton sends only to clients that ask for it."""
    parameters: dict[str, str | None] = field(default_factory=dict)
    is_embedding_model: bool = False
    """The model embeds a text as two numbers: its length, and its count of `e`."""
    max_characters: int = 0
    """Longest text of an embedding model, which refuses or truncates longer ones. 0: no limit."""
    is_transcription_model: bool = False
    """The model transcribes speech."""
    is_speech_model: bool = False
    """The model speaks. Its script has `SpeakSentences` steps."""
    is_image_model: bool = False
    """The model generates images. Its script has `DrawImages` steps."""
    is_video_model: bool = False
    """The model generates videos. Its script has `FilmVideo` steps."""
    is_upscaling_model: bool = False
    """The model upscales pictures. Its script has `EnlargePicture` steps."""
    missing_inputs: tuple[str, ...] = ()
    """Optional inputs that the model lacks, as models of older builds or of other tools do."""
    is_described: bool = True
    """False: a foreign model with other tensors and no description."""

    @property
    def adapters(self) -> list[str]:
        """The LoRA adapters that a request may name."""
        return list(json.loads(self.parameters.get("adapters") or "[]"))

    def config(self) -> config_pb.ModelConfig:
        """Return the `config.pbtxt` that a builder would write."""
        config = config_pb.ModelConfig(name=self.name, backend="llm" if self.is_described else "onnxruntime")
        if not self.is_described:
            config.input.add(name="pixels", data_type=config_pb.TYPE_FP32, dims=[3, 224, 224])
            config.output.add(name="scores", data_type=config_pb.TYPE_FP32, dims=[1000])
            for key, value in self.parameters.items():
                config.parameters[key].string_value = value or ""
            return config
        config.model_transaction_policy.decoupled = True
        if self.is_embedding_model:
            for name, kind, dims in EMBEDDING_INPUTS:
                if name in self.missing_inputs:
                    continue
                config.input.add(name=name, data_type=kind, dims=dims, optional=True)
            config.output.add(name="embedding", data_type=config_pb.TYPE_FP32, dims=[-1, 2])
            config.output.add(name="num_tokens", data_type=config_pb.TYPE_INT32, dims=[-1])
            described = {"signature": "embedding", "operations": '["embed"]', "context_length": "256"}
            for key, value in (described | self.parameters).items():
                config.parameters[key].string_value = value or ""
            return config
        if self.is_transcription_model:
            listens = any(isinstance(step, Listen) for step in self.script)
            for name, kind, dims in LISTENING_INPUTS if listens else SPEECH_INPUTS:
                if name not in self.missing_inputs:
                    config.input.add(name=name, data_type=kind, dims=dims, optional=name != "audio")
            for name, kind, dims in LISTENING_OUTPUTS if listens else LISTENING_OUTPUTS[:1]:
                config.output.add(name=name, data_type=kind, dims=dims)
            config.parameters["signature"].string_value = "transcription"
            config.parameters["operations"].string_value = '["transcribe"]'
            for key, value in self.parameters.items():
                config.parameters[key].string_value = value or ""
            return config
        if self.is_speech_model:
            for name, kind, dims in TTS_INPUTS:
                if name not in self.missing_inputs:
                    config.input.add(name=name, data_type=kind, dims=dims, optional=name != "text")
            for name, kind, dims in TTS_OUTPUTS:
                config.output.add(name=name, data_type=kind, dims=dims)
            for key, value in (_TTS_PARAMETERS | self.parameters).items():
                if value is not None:
                    config.parameters[key].string_value = value
            return config
        if self.is_image_model:
            for name, kind, dims in IMAGE_INPUTS:
                config.input.add(name=name, data_type=kind, dims=dims, optional=name != "prompt")
            for name, kind, dims in IMAGE_OUTPUTS:
                config.output.add(name=name, data_type=kind, dims=dims)
            for key, value in (_IMAGE_PARAMETERS | self.parameters).items():
                if value is not None:
                    config.parameters[key].string_value = value
            return config
        if self.is_video_model:
            for name, kind, dims in VIDEO_INPUTS:
                if name not in self.missing_inputs:
                    config.input.add(name=name, data_type=kind, dims=dims, optional=name != "prompt")
            for name, kind, dims in VIDEO_OUTPUTS:
                config.output.add(name=name, data_type=kind, dims=dims)
            for key, value in (_VIDEO_PARAMETERS | self.parameters).items():
                if value is not None:
                    config.parameters[key].string_value = value
            return config
        if self.is_upscaling_model:
            for name, kind, dims in UPSCALING_INPUTS:
                config.input.add(name=name, data_type=kind, dims=dims, optional=name != "image")
            for name, kind, dims in UPSCALING_OUTPUTS:
                config.output.add(name=name, data_type=kind, dims=dims)
            for key, value in (_UPSCALING_PARAMETERS | self.parameters).items():
                if value is not None:
                    config.parameters[key].string_value = value
            return config
        for name, kind, dims in INPUTS:
            if name in self.missing_inputs:
                continue
            config.input.add(name=name, data_type=kind, dims=dims, optional=True)
        for name, kind, dims in OUTPUTS:
            config.output.add(name=name, data_type=kind, dims=dims)
        for key, value in (_TEXT_PARAMETERS | self.parameters).items():
            if value is not None:
                config.parameters[key].string_value = value
        return config


INPUTS = [
    ("text_input", config_pb.TYPE_STRING, [1]),
    ("literal_spans", config_pb.TYPE_INT32, [-1]),
    ("token_ids", config_pb.TYPE_INT32, [-1]),
    ("stream", config_pb.TYPE_BOOL, [1]),
    ("sampling_parameters", config_pb.TYPE_STRING, [1]),
    ("exclude_input_in_output", config_pb.TYPE_BOOL, [1]),
    ("return_finish_reason", config_pb.TYPE_BOOL, [1]),
    ("return_logprobs", config_pb.TYPE_BOOL, [1]),
    ("image", config_pb.TYPE_STRING, [-1]),
    ("return_num_input_tokens", config_pb.TYPE_BOOL, [1]),
    ("return_num_output_tokens", config_pb.TYPE_BOOL, [1]),
]
SPEECH_INPUTS = [
    ("audio", config_pb.TYPE_FP32, [-1]),
    ("task", config_pb.TYPE_STRING, [1]),
    ("timestamps", config_pb.TYPE_STRING, [1]),
]
TTS_INPUTS = [
    ("text", config_pb.TYPE_STRING, [1]),
    ("voice", config_pb.TYPE_STRING, [1]),
    ("language", config_pb.TYPE_STRING, [1]),
    ("speed", config_pb.TYPE_FP32, [1]),
    ("instructions", config_pb.TYPE_STRING, [1]),
]
TTS_OUTPUTS = [
    ("audio", config_pb.TYPE_INT16, [-1]),
    ("sample_rate", config_pb.TYPE_INT32, [1]),
    ("num_input_tokens", config_pb.TYPE_UINT32, [1]),
    ("num_output_tokens", config_pb.TYPE_UINT32, [1]),
]
LISTENING_INPUTS = [
    *SPEECH_INPUTS,
    *((name, config_pb.TYPE_STRING, [1]) for name in ("language", "prompt", "vad")),
    ("temperature", config_pb.TYPE_FP32, [1]),
    ("more", config_pb.TYPE_BOOL, [1]),
    ("return_logprobs", config_pb.TYPE_BOOL, [1]),
]
LISTENING_OUTPUTS = [
    *((name, config_pb.TYPE_STRING, [1]) for name in ("text", "language", "words", "logprobs")),
    ("token_ids", config_pb.TYPE_INT32, [-1]),
    *((name, config_pb.TYPE_FP32, [1]) for name in ("start", "end", "consumed", "temperature")),
    *((name, config_pb.TYPE_FP32, [1]) for name in ("avg_logprob", "no_speech_prob", "compression_ratio")),
    *((f"num_{name}_tokens", config_pb.TYPE_UINT32, [1]) for name in ("input", "audio", "output")),
]
EMBEDDING_INPUTS = [
    ("text", config_pb.TYPE_STRING, [-1]),
    ("token_ids", config_pb.TYPE_INT32, [-1]),
    ("token_counts", config_pb.TYPE_INT32, [-1]),
    ("dimensions", config_pb.TYPE_INT32, [1]),
    ("truncate", config_pb.TYPE_BOOL, [1]),
    ("truncate_prompt_tokens", config_pb.TYPE_INT32, [1]),
]
IMAGE_INPUTS = [
    *((name, config_pb.TYPE_STRING, [1]) for name in ("prompt", "negative_prompt", "output_format")),
    *((name, config_pb.TYPE_INT32, [1]) for name in ("width", "height", "steps", "num_images", "quality")),
    ("partial_images", config_pb.TYPE_INT32, [1]),
    ("guidance_scale", config_pb.TYPE_FP32, [1]),
    ("strength", config_pb.TYPE_FP32, [1]),
    ("seed", config_pb.TYPE_UINT64, [1]),
    ("image", config_pb.TYPE_STRING, [-1]),
    ("mask", config_pb.TYPE_STRING, [-1]),
]
IMAGE_OUTPUTS = [
    ("progress", config_pb.TYPE_FP32, [1]),
    ("image", config_pb.TYPE_STRING, [1]),
    ("seed", config_pb.TYPE_UINT64, [1]),
    ("index", config_pb.TYPE_INT32, [1]),
    ("partial", config_pb.TYPE_INT32, [1]),
]
VIDEO_INPUTS = [
    *((name, config_pb.TYPE_STRING, [1]) for name in ("prompt", "negative_prompt")),
    *((name, config_pb.TYPE_INT32, [1]) for name in ("width", "height", "steps", "num_frames", "fps", "quality")),
    ("partial_images", config_pb.TYPE_INT32, [1]),
    *((name, config_pb.TYPE_FP32, [1]) for name in ("guidance_scale", "strength")),
    ("seed", config_pb.TYPE_UINT64, [1]),
    *((name, config_pb.TYPE_STRING, [-1]) for name in ("image", "frames")),
]
VIDEO_OUTPUTS = [
    ("progress", config_pb.TYPE_FP32, [1]),
    *((name, config_pb.TYPE_STRING, [1]) for name in ("video", "preview")),
    *((name, config_pb.TYPE_INT32, [1]) for name in ("width", "height", "num_frames", "fps", "partial")),
    ("seed", config_pb.TYPE_UINT64, [1]),
]
UPSCALING_INPUTS = [
    *((name, config_pb.TYPE_STRING, [1]) for name in ("image", "output_format")),
    *((name, config_pb.TYPE_INT32, [1]) for name in ("scale", "quality")),
]
UPSCALING_OUTPUTS = [
    ("progress", config_pb.TYPE_FP32, [1]),
    ("image", config_pb.TYPE_STRING, [1]),
    *((name, config_pb.TYPE_INT32, [1]) for name in ("width", "height")),
]
OUTPUTS = [
    ("text_output", config_pb.TYPE_STRING, [-1]),
    ("finish_reason", config_pb.TYPE_STRING, [-1]),
    ("logprobs", config_pb.TYPE_STRING, [-1]),
    ("num_input_tokens", config_pb.TYPE_UINT32, [1]),
    ("num_output_tokens", config_pb.TYPE_UINT32, [1]),
]
_TEXT_PARAMETERS: dict[str, str | None] = {
    "operations": '["chat", "complete"]',
    "signature": "vllm",
    "modalities": '["text"]',
    "context_length": "8192",
    "chat_template": CHATML,
    "special_tokens": json.dumps({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}),
    "control_tokens": json.dumps(["<|im_start|>", "<|im_end|>", "<|endoftext|>"]),
    "owned_by": "huggingface",
    "created": "1763683200",
    "engine": "onnxruntime",
    "precision": "int8",
}
_IMAGE_PARAMETERS: dict[str, str | None] = {
    "operations": '["generate_image", "edit_image"]',
    "signature": "image",
    "modalities": '["text", "image"]',
    "sizes": "[[128, 128], [192, 128], [1024, 1024]]",
    "default_size": "[128, 128]",
    "default_steps": "20",
    "max_steps": "50",
    "default_guidance": "3.0",
    "max_images": "10",
    "created": "1763683200",
    "owned_by": "tritonic",
}
_VIDEO_PARAMETERS: dict[str, str | None] = {
    "operations": '["generate_video"]',
    "signature": "video",
    "modalities": '["text", "image", "video"]',
    "sizes": "[[64, 64], [96, 64], [1280, 720]]",
    "default_size": "[64, 64]",
    "default_steps": "20",
    "max_steps": "50",
    "default_num_frames": "17",
    "max_num_frames": "33",
    "default_fps": "8",
    "max_fps": "16",
    "references": '["image", "frames"]',
    "created": "1763683200",
    "owned_by": "tritonic",
}
_UPSCALING_PARAMETERS: dict[str, str | None] = {
    "operations": '["upscale_image"]',
    "signature": "upscaling",
    "scales": "[2, 4]",
    "max_pixels": "20000",
    "max_output_pixels": "80000",
    "created": "1763683200",
    "owned_by": "tritonic",
}
VOICES = [
    {"id": "heart", "name": "Heart", "language": "en-US", "gender": "female"},
    {"id": "bella", "name": "Bella", "language": "en-US", "gender": "female"},
    {"id": "adam", "name": "Adam", "language": "en-US", "gender": "male"},
    {"id": "alpha", "name": "Alpha", "language": "ja-JP", "gender": "female"},
]
_TTS_PARAMETERS: dict[str, str | None] = {
    "operations": '["speak"]',
    "signature": "speech",
    "voices": json.dumps(VOICES),
    "default_voice": "heart",
    "languages": '["en-US", "ja-JP"]',
    "sample_rate": "24000",
    "max_characters": "100000",
    "created": "1763683200",
}
