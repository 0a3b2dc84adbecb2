"""The parts of an AnimateDiff pipeline that become Triton models of their own, with their tensors.

The VAE is that of images and takes one frame a run, so its memory does not grow with the video. Its tensors have a
dimension of one frame, as those of the other families do.
"""

from builders.diffusion.parts import Multiple, PipelinePart, TensorSpec
from builders.video.motion_pipeline import MotionPipeline

MOTION_PARTS = ("text-encoder", "denoiser", "vae-encoder", "vae-decoder")
"""Names of the parts of every pipeline."""


def motion_parts(pipeline: MotionPipeline) -> tuple[PipelinePart, ...]:
    """Return the parts of a pipeline, text encoder first."""
    config, tokens = pipeline.config("text_encoder"), pipeline.num_tokens
    channels, factor = pipeline.latent_channels, pipeline.vae_scale_factor
    sample = (channels, "frames", "height", "width")
    width = pipeline.config("unet")["cross_attention_dim"]
    states = ("tokens", width[0] if isinstance(width, list) else width)
    video = TensorSpec("video", (3, 1, Multiple("height", factor), Multiple("width", factor)))
    return (
        PipelinePart(
            "text-encoder",
            "clip",
            "text_encoder",
            (TensorSpec("input_ids", (tokens,), "INT64"),),
            (TensorSpec("hidden_states", (tokens, config["hidden_size"])),),
            vocabulary=config["vocab_size"],
        ),
        PipelinePart(
            "denoiser",
            "motion-unet",
            "unet",
            (
                TensorSpec("sample", sample),
                TensorSpec("timestep", ()),
                TensorSpec("encoder_hidden_states", states),
            ),
            (TensorSpec("noise_pred", sample),),
            pipeline.patch_size[1],
        ),
        PipelinePart(
            "vae-encoder",
            "frame-encoder",
            "vae",
            (video,),
            (TensorSpec("moments", (2 * channels, 1, "height", "width")),),
        ),
        PipelinePart(
            "vae-decoder",
            "frame-decoder",
            "vae",
            (TensorSpec("latent", (channels, 1, "height", "width")),),
            (video,),
        ),
    )
