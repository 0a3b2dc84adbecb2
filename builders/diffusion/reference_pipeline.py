"""A reference implementation of image generation with the installed engines, which the pipeline model must match.

The scheduler is diffusers' own, and random numbers come from PyTorch's generator.
"""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.diffusion.pipeline_json import FILE_NAME

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """A request for images of one prompt, whose noise comes from one random generator."""

    prompt: str
    negative_prompt: str | None
    guidance: float
    steps: int
    width: int
    height: int
    num_images: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class GeneratedImages:
    """Generated images, and the latents before decoding."""

    latents: Array
    """As diffusers' pipelines return them: [images, channels, h, w], or [images, patches, 4 * channels] for Flux."""
    images: Array
    """[images, 3, height, width], from 0 to 1."""


class Engines:
    """The engines of one pipeline on plain onnxruntime, each opened on first use."""

    def __init__(self, pipeline: Path, engine: Callable[[str], Path]) -> None:
        """Read `pipeline/pipeline.json`; `engine` returns the path of a Triton model's `model.onnx` by its name."""
        from tokenizers import Tokenizer

        self.description: dict[str, Any] = json.loads((pipeline / FILE_NAME).read_bytes())
        self.tokenizers = [
            Tokenizer.from_file(str(pipeline / entry["folder"] / "tokenizer.json"))
            for entry in self.description["tokenizers"]
        ]
        self._engine = engine
        self._open: dict[str, Any] = {}

    def run(self, name: str, **inputs: Any) -> list[Array]:
        """Run the engine of a Triton model, with floating-point inputs converted to float32."""
        if name not in self._open:
            self._open[name] = open_session(self._engine(name))
        fed = {key: value if value.dtype == np.int64 else value.astype(np.float32) for key, value in inputs.items()}
        found: list[Array] = self._open[name].run(None, fed)
        return found


def open_session(model: Path) -> Any:
    """Open an engine. Raises what onnxruntime raises."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def generate_images(engines: Engines, request: ImageRequest) -> GeneratedImages:
    """Generate the requested images."""
    import diffusers
    import torch

    description, count = engines.description, request.num_images
    family, vae = description["family"], description["vae"]
    config = {key: value for key, value in description["scheduler"].items() if key != "class"}
    scheduler = getattr(diffusers, description["scheduler"]["class"]).from_config(config)
    height, width = request.height // vae["factor"], request.width // vae["factor"]
    timesteps = _timesteps(scheduler, description, request.steps, height, width)
    generator = torch.Generator("cpu").manual_seed(request.seed)
    noise = torch.randn((count, vae["channels"], height, width), generator=generator)
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    packed = family == "flux"
    if packed:
        latents = torch.from_numpy(pack(latents.numpy()))
    doubled = description["guidance"] == "classifier-free" and request.guidance > 1
    conditions = _conditions(engines, request, doubled)
    if description["guidance"] == "embedded":
        conditions["guidance"] = np.full(count, request.guidance, np.float32)
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    more = {"generator": generator} if takes_generator else {}
    for timestep in timesteps:
        rows = torch.cat([latents, latents]) if doubled else latents
        if hasattr(scheduler, "scale_model_input"):
            rows = scheduler.scale_model_input(rows, timestep)
        times = np.full(len(rows), float(timestep) / 1000 if packed else float(timestep), np.float32)
        sample = {"hidden_states" if packed else "sample": rows.numpy()}
        (noise_prediction,) = engines.run(description["components"]["denoiser"], **sample, timestep=times, **conditions)
        prediction = torch.from_numpy(noise_prediction)
        if doubled:
            without, with_prompt = prediction.chunk(2)
            prediction = without + request.guidance * (with_prompt - without)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False, **more)[0]
    finished: Array = latents.numpy()
    return GeneratedImages(finished, _decode(engines, unpack(finished, height, width) if packed else finished))


def _timesteps(scheduler: Any, description: dict[str, Any], steps: int, height: int, width: int) -> Any:
    """Set the scheduler's timesteps as diffusers' pipeline of the family does, and return them."""
    shifting: dict[str, Any] = {}
    if description["family"] in ("flux", "stable-diffusion-3") and scheduler.config.get("use_dynamic_shifting"):
        patches = (height // description["patch_size"]) * (width // description["patch_size"])
        config = scheduler.config
        min_patches, max_patches = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        default = 1.15 if description["family"] == "flux" else 1.16
        low, high = config.get("base_shift", 0.5), config.get("max_shift", default)
        slope = (high - low) / (max_patches - min_patches)
        shifting["mu"] = patches * slope + low - slope * min_patches
    if description["family"] == "flux" and not scheduler.config.get("use_flow_sigmas"):
        shifting["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(**shifting)
    else:
        scheduler.set_timesteps(steps, **shifting)
    return scheduler.timesteps


def _conditions(engines: Engines, request: ImageRequest, doubled: bool) -> dict[str, Array]:
    """Return the denoiser's inputs besides sample and timestep, one row for each row of the sample."""
    description, count = engines.description, request.num_images
    states, pooled = _encode(engines, request.prompt)
    if doubled:
        empty = request.negative_prompt is None and description.get("force_zeros_for_empty_prompt", False)
        negative, negative_pooled = _encode(engines, request.negative_prompt or "")
        if empty:
            negative, negative_pooled = np.zeros_like(states), np.zeros_like(pooled)
        states = np.concatenate([negative.repeat(count, 0), states.repeat(count, 0)])
        pooled = np.concatenate([negative_pooled.repeat(count, 0), pooled.repeat(count, 0)])
    else:
        states, pooled = states.repeat(count, 0), pooled.repeat(count, 0)
    conditions: dict[str, Array] = {"encoder_hidden_states": states}
    family, rows = description["family"], len(states)
    if family == "stable-diffusion-xl":
        size = (request.height, request.width)
        conditions |= {
            "text_embeds": pooled,
            "time_ids": np.tile(np.array([*size, 0, 0, *size], np.float32), (rows, 1)),
        }
    elif family != "stable-diffusion":
        conditions["pooled_projections"] = pooled
    if family == "flux":
        multiple = description["vae"]["factor"] * description["patch_size"]
        grid = np.zeros((request.height // multiple, request.width // multiple, 3), np.float32)
        grid[..., 1] += np.arange(grid.shape[0])[:, None]
        grid[..., 2] += np.arange(grid.shape[1])[None, :]
        conditions["img_ids"] = np.tile(grid.reshape(1, -1, 3), (rows, 1, 1))
        conditions["txt_ids"] = np.zeros((rows, states.shape[1], 3), np.float32)
    return conditions


def _encode(engines: Engines, text: str) -> tuple[Array, Array]:
    """Encode a prompt: states [1, tokens, width], and pooled [1, width], or [1, 0] for a family without it."""
    description = engines.description
    names = description["components"]["text_encoders"]
    found = []
    for name, tokenizer in zip(names, engines.tokenizers, strict=True):
        found.append(engines.run(name, input_ids=np.array([tokenizer.encode(text).ids], np.int64)))
    outputs = [
        dict(zip(entry["outputs"], values, strict=True))
        for entry, values in zip(description["tokenizers"], found, strict=True)
    ]
    family = description["family"]
    if family == "flux":
        return outputs[1]["hidden_states"], outputs[0]["pooled"]
    pooled = [output["pooled"] for output in outputs if "pooled" in output]
    clips = np.concatenate([output["hidden_states"] for output in outputs[:2]], -1)
    if family == "stable-diffusion-3":
        width = description["joint_attention_dim"]
        empty = np.zeros((1, description["t5_tokens"], width), np.float32)
        t5 = outputs[2]["hidden_states"] if len(outputs) > 2 else empty
        clips = np.pad(clips, ((0, 0), (0, 0), (0, width - clips.shape[-1])))
        clips = np.concatenate([clips, t5], 1)
    return clips, np.concatenate(pooled, -1) if pooled else np.zeros((1, 0), np.float32)


def _decode(engines: Engines, latents: Array) -> Array:
    vae = engines.description["vae"]
    if "latents_mean" in vae and "latents_std" in vae:
        mean, deviation = (
            np.array(vae[key], np.float32)[None, :, None, None] for key in ("latents_mean", "latents_std")
        )
        latents = latents * deviation / vae["scaling_factor"] + mean
    else:
        latents = latents / vae["scaling_factor"] + vae["shift_factor"]
    (images,) = engines.run(engines.description["components"]["vae_decoder"], latent=latents)
    clipped: Array = np.clip(images / 2 + 0.5, 0, 1)
    return clipped


def pack(latents: Array) -> Array:
    """Convert latents [n, channels, h, w] to Flux's patches [n, h/2 * w/2, 4 * channels]."""
    count, channels, height, width = latents.shape
    parted = latents.reshape(count, channels, height // 2, 2, width // 2, 2).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(parted.reshape(count, -1, channels * 4))


def unpack(patches: Array, height: int, width: int) -> Array:
    """Convert Flux's patches [n, h/2 * w/2, 4 * channels] to latents [n, channels, height, width]."""
    count, _, packed = patches.shape
    parted = patches.reshape(count, height // 2, width // 2, packed // 4, 2, 2).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(parted.reshape(count, packed // 4, height, width))
