"""Generate and encode videos with diffusers' own AnimateDiff pipeline, in fp32 on the CPU."""

from typing import Any

import torch

from builders.checkpoint import read_json
from builders.diffusion.library_logging import silence_libraries
from builders.diffusion.networks import load_component
from builders.diffusion.pipeline import tokenizer_folder
from builders.diffusion.pipeline_json import load_tokenizer
from builders.video.motion_networks import load_unet
from builders.video.motion_pipeline import MotionPipeline
from builders.video.reference_pipeline import GeneratedVideos, VideoRequest


def diffusers_pipeline(pipeline: MotionPipeline) -> Any:
    """Return diffusers' `AnimateDiffPipeline` over the components of a folder."""
    import diffusers

    silence_libraries()
    scheduler = getattr(diffusers, pipeline.index["scheduler"][1])
    options = read_json(pipeline.folder / "scheduler" / "scheduler_config.json")
    built = diffusers.AnimateDiffPipeline(
        vae=load_component(pipeline, "vae"),
        text_encoder=load_component(pipeline, "text_encoder"),
        tokenizer=load_tokenizer(pipeline.folder / tokenizer_folder("text_encoder")),
        unet=load_unet(pipeline),
        motion_adapter=None,
        scheduler=scheduler.from_config(options),
    )
    built.set_progress_bar_config(disable=True)
    return built


def generate_motion(pipeline: MotionPipeline, request: VideoRequest) -> GeneratedVideos:
    """Generate videos of one prompt, whose noise comes from one random generator."""
    built = diffusers_pipeline(pipeline)
    with torch.inference_mode():
        latents = built(
            prompt=[request.prompt] * request.num_videos,
            negative_prompt=[request.negative_prompt] * request.num_videos,
            width=request.width,
            height=request.height,
            num_frames=request.num_frames,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type="latent",
        ).frames
        videos = built.decode_latents(latents)
    return GeneratedVideos(latents.numpy(), (videos / 2 + 0.5).clamp(0, 1).numpy())


def encode_frames(pipeline: MotionPipeline, video: Any) -> Any:
    """Encode each frame of videos [n, 3, frames, H, W] in -1..1 to the means of its latent, not scaled."""
    silence_libraries()
    frames = torch.from_numpy(video).transpose(1, 2)
    with torch.inference_mode():
        means = load_component(pipeline, "vae").encode(frames.flatten(0, 1)).latent_dist.mean
    return means.unflatten(0, frames.shape[:2]).transpose(1, 2).numpy()
