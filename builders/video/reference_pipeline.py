"""A reference implementation of video generation with the installed engines, which the pipeline model must match.

The scheduler is diffusers' own, and random numbers come from PyTorch's generator.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.diffusion.reference_pipeline import Array, Engines


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """A request for videos of one prompt, whose noise comes from one random generator."""

    prompt: str
    negative_prompt: str
    guidance: float
    steps: int
    width: int
    height: int
    num_frames: int
    num_videos: int = 1
    seed: int = 0
    image: npt.NDArray[np.uint8] | None = None
    """First frame [height, width, 3]; None for text to video."""


@dataclass(frozen=True, slots=True)
class GeneratedVideos:
    """Generated videos, and the latents before decoding."""

    latents: Array
    """[videos, channels, latent frames, h, w], as diffusers' pipelines return them."""
    videos: Array
    """[videos, 3, frames, height, width], from 0 to 1."""


def generate_videos(engines: Engines, request: VideoRequest) -> GeneratedVideos:
    """Generate the requested videos."""
    import diffusers
    import torch

    description, count = engines.description, request.num_videos
    vae = description["vae"]
    config = {key: value for key, value in description["scheduler"].items() if key != "class"}
    scheduler = getattr(diffusers, description["scheduler"]["class"]).from_config(config)
    scheduler.set_timesteps(request.steps)
    frames = 1 + (request.num_frames - 1) // vae["temporal_factor"]
    size = request.height // vae["factor"], request.width // vae["factor"]
    generator = torch.Generator("cpu").manual_seed(request.seed)
    latents = torch.randn((count, vae["channels"], frames, *size), generator=generator)
    # Wan's pipelines neither scale the first latent nor the denoiser's input.
    scales = description["family"] != "wan"
    if scales:
        latents = latents * scheduler.init_noise_sigma
    takes_generator = scales and "generator" in inspect.signature(scheduler.step).parameters
    drawing = {"generator": generator} if takes_generator else {}
    doubled = request.guidance > 1
    texts = [request.negative_prompt, request.prompt] if doubled else [request.prompt]
    states = np.concatenate([encode_text(engines, text).repeat(count, 0) for text in texts])
    more, first = _picture(engines, request, len(states), frames)
    for timestep in scheduler.timesteps:
        sample = _with_first_frame(latents, first)
        if scales:
            sample = scheduler.scale_model_input(sample, timestep)
        rows = torch.cat([sample, sample]) if doubled else sample
        times = np.full((len(rows), frames) if description["expand_timesteps"] else len(rows), float(timestep))
        if first is not None:
            times[:, 0] = 0
        (predicted,) = engines.run(
            description["components"]["denoiser"],
            sample=rows.numpy(),
            timestep=times,
            encoder_hidden_states=states,
            **more,
        )
        prediction = torch.from_numpy(predicted)
        if doubled:
            without, with_prompt = prediction.chunk(2)
            prediction = without + request.guidance * (with_prompt - without)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False, **drawing)[0]
    finished: Array = _with_first_frame(latents, first).numpy()
    videos: Array = np.clip(decode_video(engines, unscale(vae, finished)) / 2 + 0.5, 0, 1)
    return GeneratedVideos(finished, videos)


def _with_first_frame(latents: Any, first: Array | None) -> Any:
    import torch

    if first is None:
        return latents
    return torch.cat([torch.from_numpy(first).expand(len(latents), -1, -1, -1, -1), latents[:, :, 1:]], dim=2)


def encode_text(engines: Engines, text: str) -> Array:
    """Encode a prompt to states [1, tokens, width]. Wan's are zeros where the prompt has ended."""
    tokens = engines.tokenizers[0].encode(text)
    (name,) = engines.description["components"]["text_encoders"]
    ids = np.array([tokens.ids], np.int64)
    if engines.description["family"] != "wan":
        return engines.run(name, input_ids=ids)[0]
    mask = np.array([tokens.attention_mask], np.int64)
    (states,) = engines.run(name, input_ids=ids, attention_mask=mask)
    return states * mask[..., None].astype(np.float32)


def _picture(engines: Engines, request: VideoRequest, rows: int, frames: int) -> tuple[dict[str, Any], Array | None]:
    """Return the denoiser's inputs that a picture adds, and the latent first frame [1, channels, 1, h, w], if any."""
    description = engines.description
    if request.image is None:
        return {}, None
    vae, pixels = description["vae"], request.image.astype(np.float32).transpose(2, 0, 1)[None, :, None] / 127.5 - 1
    if description["image_conditioning"] == "first-frame":
        return {}, scale(vae, encode_video(engines, pixels))
    padded = np.concatenate([pixels, np.zeros((1, 3, request.num_frames - 1, *pixels.shape[-2:]), np.float32)], axis=2)
    latent = scale(vae, encode_video(engines, padded))
    mask = np.zeros((1, vae["temporal_factor"], frames, *latent.shape[-2:]), np.float32)
    mask[:, :, 0] = 1
    more = {"condition": np.concatenate([mask, latent], axis=1).repeat(rows, 0)}
    if "image_processor" in description:
        picture = prepare_picture(description["image_processor"], request.image)
        (embedded,) = engines.run(description["components"]["image_encoder"], image=picture)
        more["image_embeds"] = embedded.repeat(rows, 0)
    return more, None


def prepare_picture(processor: dict[str, Any], image: npt.NDArray[np.uint8]) -> Array:
    """Resize, crop and normalise a picture [height, width, 3] for the image encoder: [1, 3, side, side]."""
    from PIL import Image

    side, (height, width) = processor["size"], image.shape[:2]
    shorter = min(height, width)
    height, width = int(side * height / shorter), int(side * width / shorter)
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    top, left = (height - side) // 2, (width - side) // 2
    pixels = np.asarray(picture.crop((left, top, left + side, top + side)), np.float32) / 255
    normalised = (pixels - np.array(processor["mean"], np.float32)) / np.array(processor["std"], np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None], np.float32)


def encode_video(engines: Engines, video: Array) -> Array:
    """Encode videos [n, 3, frames, H, W] in -1..1 piece by piece to the means of their latents, not scaled."""
    components, vae = engines.description["components"], engines.description["vae"]
    channels, factor = vae["channels"], vae["temporal_factor"]
    moments, *caches = engines.run(components["vae_encoder"], video=video[:, :, :1])
    means = [moments[:, :channels]]
    for start in range(1, video.shape[2], factor):
        moments, *caches = engines.run(
            components["vae_encoder_next"], video=video[:, :, start : start + factor], **_named(caches)
        )
        means.append(moments[:, :channels])
    return np.concatenate(means, axis=2)


def decode_video(engines: Engines, latents: Array) -> Array:
    """Decode unscaled latents [n, channels, frames, h, w] piece by piece to pixels [n, 3, frames, H, W] in -1..1."""
    components = engines.description["components"]
    pixels, *caches = engines.run(components["vae_decoder"], latent=latents[:, :, :1])
    pieces = [pixels]
    for number in range(1, latents.shape[2]):
        pixels, *caches = engines.run(
            components["vae_decoder_next"], latent=latents[:, :, number : number + 1], **_named(caches)
        )
        pieces.append(pixels)
    return np.concatenate(pieces, axis=2)


def _named(caches: list[Array]) -> dict[str, Array]:
    return {f"cache_{number}": cache for number, cache in enumerate(caches)}


def scale(vae: dict[str, Any], latents: Array) -> Array:
    """Convert the VAE's latents to those that the denoiser works on."""
    if "latents_mean" not in vae:
        return latents * np.float32(vae["scaling_factor"])
    mean, deviation = _statistics(vae)
    return (latents - mean) / deviation


def unscale(vae: dict[str, Any], latents: Array) -> Array:
    """Convert the denoiser's latents to those of the VAE."""
    if "latents_mean" not in vae:
        return latents / np.float32(vae["scaling_factor"])
    mean, deviation = _statistics(vae)
    return latents * deviation + mean


def _statistics(vae: dict[str, Any]) -> tuple[Array, Array]:
    mean, deviation = (np.array(vae[key], np.float32) for key in ("latents_mean", "latents_std"))
    return mean.reshape(1, -1, 1, 1, 1), deviation.reshape(1, -1, 1, 1, 1)
