"""Compare the engines of a video pipeline with diffusers, all together."""

import gc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from builders.checkpoint import read_json
from builders.diffusion.library_logging import silence_libraries
from builders.diffusion.part_comparison import PartMetrics, compare_part, largest_difference, relative_difference
from builders.diffusion.parts import PipelinePart
from builders.diffusion.pipeline import tokenizer_folder
from builders.diffusion.pipeline_json import load_tokenizer
from builders.diffusion.reference_pipeline import Engines
from builders.diffusion.verify import MAX_LATENT_DIFFERENCE, MAX_PIXEL_DIFFERENCE
from builders.errors import VerificationFailed
from builders.recipe import Precision
from builders.video.motion_pipeline import MotionPipeline
from builders.video.pipeline import VideoPipeline
from builders.video.reference_pipeline import GeneratedVideos, VideoRequest, encode_video, generate_videos

PROMPT, NEGATIVE = "a red cat walks, 2 hats", "blurred"
FRAMES, STEPS, SEED = 9, 3, 3
"""Three latent frames: the decoder starts, continues, and continues from its own caches."""


@dataclass(frozen=True, slots=True)
class VideoMetrics:
    """Distance of the videos of all engines together from those of diffusers, for the same seed and scheduler."""

    videos: int
    """One from text, one from text and a first frame, or both: what the pipeline can make."""
    frames: int
    steps: int
    width: int
    height: int
    latent_difference: float
    """Largest difference of one number of the final latents, relative to their largest number."""
    pixel_difference: float
    """Largest difference of one colour channel of one pixel of any frame, on a scale of 0 to 1."""
    pixel_difference_mean: float
    encoder_difference: float
    """Largest difference of one number of an encoded video, relative to the largest number."""


def verify_part(pipeline: VideoPipeline, part: PipelinePart, model: Path, precision: Precision = "fp32") -> PartMetrics:
    """Compare one engine with its source network, see `compare_part`. Raises VerificationFailed.

    The VAE is in fp32 in every recipe.
    """
    from builders.video.networks import load_part

    arithmetic: Precision = "fp32" if part.component == "vae" else precision
    return compare_part(part, lambda half: load_part(pipeline, part, half=half), model, arithmetic)


def verify_videos(
    pipeline: VideoPipeline, engines: Engines, guidance: float, precision: Precision = "fp32"
) -> VideoMetrics:
    """Generate the same videos with the engines and with diffusers. Raises VerificationFailed with the figures."""
    requests = smallest_requests(pipeline, guidance)
    size = requests[0].height, requests[0].width
    pixels = np.random.default_rng(SEED).uniform(-1, 1, (1, 3, FRAMES, *size)).astype(np.float32)
    theirs = []
    for request in requests:
        theirs.append(generate_with_diffusers(pipeline, request))
        gc.collect()
    encoded = encode_with_diffusers(pipeline, pixels)
    try:
        ours = [generate_videos(engines, request) for request in requests]
        encoder_difference = relative_difference(encode_video(engines, pixels), encoded)
    except Exception as error:  # onnxruntime's errors have no common base
        raise VerificationFailed(
            f"The engines cannot generate a video together, so nothing was installed: {error}"
        ) from error
    pairs = list(zip(ours, theirs, strict=True))
    figures = VideoMetrics(
        videos=len(requests),
        frames=FRAMES,
        steps=STEPS,
        width=size[1],
        height=size[0],
        latent_difference=max(relative_difference(mine.latents, source.latents) for mine, source in pairs),
        pixel_difference=max(largest_difference(mine.videos, source.videos) for mine, source in pairs),
        pixel_difference_mean=max(float(np.abs(mine.videos - source.videos).mean()) for mine, source in pairs),
        encoder_difference=encoder_difference,
    )
    latent_limit, pixel_limit = MAX_LATENT_DIFFERENCE[precision], MAX_PIXEL_DIFFERENCE[precision]
    latents = max(figures.latent_difference, figures.encoder_difference)
    if not (latents <= latent_limit and figures.pixel_difference <= pixel_limit):
        raise VerificationFailed(
            "The videos of the engines differ from those of diffusers, so nothing was installed. Largest difference of "
            f"the latents {latents:.3g} of their largest number (at most {latent_limit:g}), of a pixel "
            f"{figures.pixel_difference:.3g} (at most {pixel_limit:g}), over {len(requests)} videos of {FRAMES} frames "
            f"in {STEPS} steps."
        )
    return figures


def smallest_requests(pipeline: VideoPipeline, guidance: float, num_videos: int = 1) -> list[VideoRequest]:
    """Return the smallest requests that use all engines: without a picture and with one, where the pipeline can."""
    width, height = 3 * pipeline.size_multiple, 2 * pipeline.size_multiple
    request = VideoRequest(PROMPT, NEGATIVE, guidance, STEPS, width, height, FRAMES, num_videos, SEED)
    image = np.random.default_rng(SEED).integers(0, 256, (height, width, 3), np.uint8)
    conditioning = pipeline.image_conditioning
    without = [] if conditioning == "channels" else [request]
    return without if conditioning == "none" else [*without, replace(request, image=image)]


def generate_with_diffusers(pipeline: VideoPipeline, request: VideoRequest) -> GeneratedVideos:
    """Generate videos with diffusers' own pipelines, in fp32 on the CPU."""
    if isinstance(pipeline, MotionPipeline):
        from builders.video.motion_reference import generate_motion

        return generate_motion(pipeline, request)
    import torch
    from diffusers import WanPipeline
    from PIL import Image

    built = _diffusers_pipeline(pipeline, with_image=request.image is not None)
    tokens, count = pipeline.num_tokens, request.num_videos
    with torch.inference_mode():
        # WanImageToVideoPipeline's own method needs a package that corrects misread characters.
        prompt, negative = (
            WanPipeline._get_t5_prompt_embeds(built, text, max_sequence_length=tokens).repeat(count, 1, 1)
            for text in (request.prompt, request.negative_prompt)
        )
        latents = built(
            prompt_embeds=prompt,
            negative_prompt_embeds=negative,
            width=request.width,
            height=request.height,
            num_frames=request.num_frames,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type="latent",
            **({} if request.image is None else {"image": Image.fromarray(request.image)}),
        ).frames
        config = built.vae.config
        mean, deviation = (
            torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std)
        )
        videos = built.vae.decode(latents * deviation + mean, return_dict=False)[0]
    return GeneratedVideos(latents.numpy(), (videos / 2 + 0.5).clamp(0, 1).numpy())


def encode_with_diffusers(pipeline: VideoPipeline, video: Any) -> Any:
    """Encode videos [n, 3, frames, H, W] in -1..1 to the means of their latents, with diffusers' own VAE."""
    import torch

    from builders.diffusion.networks import load_component

    silence_libraries()
    if isinstance(pipeline, MotionPipeline):
        from builders.video.motion_reference import encode_frames

        return encode_frames(pipeline, video)
    with torch.inference_mode():
        return load_component(pipeline, "vae").encode(torch.from_numpy(video)).latent_dist.mean.numpy()


def _diffusers_pipeline(pipeline: VideoPipeline, *, with_image: bool) -> Any:
    """Return diffusers' pipeline for requests with a picture or without one, which share their components."""
    import diffusers
    import transformers

    from builders.diffusion.networks import load_component

    silence_libraries()
    components = {name: load_component(pipeline, name) for name in ("text_encoder", "transformer", "vae")}
    scheduler = getattr(diffusers, pipeline.index["scheduler"][1])
    components["scheduler"] = scheduler.from_config(read_json(pipeline.folder / "scheduler" / "scheduler_config.json"))
    components["tokenizer"] = load_tokenizer(pipeline.folder / tokenizer_folder("text_encoder"))
    if with_image and pipeline.has_image_encoder:
        components["image_encoder"] = load_component(pipeline, "image_encoder")
        components["image_processor"] = transformers.CLIPImageProcessor.from_pretrained(
            pipeline.folder / "image_processor", local_files_only=True, trust_remote_code=False
        )
    kind = diffusers.WanImageToVideoPipeline if with_image else diffusers.WanPipeline
    built = kind(**components, expand_timesteps=pipeline.expand_timesteps)
    built.set_progress_bar_config(disable=True)
    return built
