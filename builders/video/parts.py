"""The parts of a Wan pipeline that become Triton models of their own, with their tensors.

The VAE works through a video in pieces, the first frame alone and then `temporal_factor` frames at a time, so that its
memory does not grow with the video. `…-first` starts such a stream, `…-next` continues it. Between two pieces the
caches carry the last frames that each causal convolution saw. Both graphs have the same caches: where the first piece
has only one frame, a frame of zeros is before it, which is what the convolution pads with.
"""

from builders.diffusion.parts import Multiple, PipelinePart, TensorSpec
from builders.video.motion_parts import motion_parts
from builders.video.motion_pipeline import MotionPipeline
from builders.video.pipeline import VideoPipeline
from builders.video.vae_caches import CacheSpec, decoder_caches, encoder_caches


def pipeline_parts(pipeline: VideoPipeline) -> tuple[PipelinePart, ...]:
    """Return the parts of a pipeline of any family, text encoder first.

    Raises what diffusers raises if the VAE of a Wan pipeline cannot be made.
    """
    if isinstance(pipeline, MotionPipeline):
        return motion_parts(pipeline)
    encoder = (_image_encoder(pipeline),) if pipeline.has_image_encoder else ()
    return (_text_encoder(pipeline), *encoder, _denoiser(pipeline), *_vae_encoders(pipeline), *_vae_decoders(pipeline))


def _text_encoder(pipeline: VideoPipeline) -> PipelinePart:
    config, tokens = pipeline.config("text_encoder"), pipeline.num_tokens
    return PipelinePart(
        "text-encoder",
        "umt5",
        "text_encoder",
        (TensorSpec("input_ids", (tokens,), "INT64"), TensorSpec("attention_mask", (tokens,), "INT64")),
        (TensorSpec("hidden_states", (tokens, config["d_model"])),),
        vocabulary=config["vocab_size"],
    )


def _image_encoder(pipeline: VideoPipeline) -> PipelinePart:
    config = pipeline.config("image_encoder")
    side = config["image_size"]
    return PipelinePart(
        "image-encoder",
        "clip-vision",
        "image_encoder",
        (TensorSpec("image", (3, side, side)),),
        (_image_tokens(pipeline),),
    )


def _image_tokens(pipeline: VideoPipeline) -> TensorSpec:
    config = pipeline.config("image_encoder")
    return TensorSpec("image_embeds", ((config["image_size"] // config["patch_size"]) ** 2 + 1, config["hidden_size"]))


def _denoiser(pipeline: VideoPipeline) -> PipelinePart:
    channels, width = pipeline.latent_channels, pipeline.config("transformer")["text_dim"]
    sample = TensorSpec("sample", (channels, "frames", "height", "width"))
    # A network that attends to a picture splits its tokens from those of the text, of which it knows the number.
    tokens = pipeline.num_tokens if pipeline.has_image_encoder else "tokens"
    inputs: tuple[TensorSpec, ...] = (
        sample,
        TensorSpec("timestep", ("frames",) if pipeline.expand_timesteps else ()),
        TensorSpec("encoder_hidden_states", (tokens, width)),
    )
    if pipeline.image_conditioning == "channels":
        inputs = (*inputs, TensorSpec("condition", (pipeline.condition_channels, "frames", "height", "width")))
    if pipeline.has_image_encoder:
        inputs = (*inputs, _image_tokens(pipeline))
    noise = (TensorSpec("noise_pred", sample.shape),)
    return PipelinePart("denoiser", "wan", "transformer", inputs, noise, pipeline.patch_size[1])


def _vae_encoders(pipeline: VideoPipeline) -> tuple[PipelinePart, PipelinePart]:
    caches = encoder_caches(pipeline)
    moments = TensorSpec("moments", (2 * pipeline.latent_channels, 1, "height", "width"))
    return (
        PipelinePart(
            "vae-encoder-first",
            "wan-encoder-first",
            "vae",
            (_frames(pipeline, 1),),
            (moments, *_tensors("cache_out", caches)),
        ),
        PipelinePart(
            "vae-encoder-next",
            "wan-encoder-next",
            "vae",
            (_frames(pipeline, pipeline.temporal_factor), *_tensors("cache", caches)),
            (moments, *_tensors("cache_out", caches)),
        ),
    )


def _vae_decoders(pipeline: VideoPipeline) -> tuple[PipelinePart, PipelinePart]:
    caches = decoder_caches(pipeline)
    latent = TensorSpec("latent", (pipeline.latent_channels, 1, "height", "width"))
    return (
        PipelinePart(
            "vae-decoder-first",
            "wan-decoder-first",
            "vae",
            (latent,),
            (_frames(pipeline, 1), *_tensors("cache_out", caches)),
        ),
        PipelinePart(
            "vae-decoder-next",
            "wan-decoder-next",
            "vae",
            (latent, *_tensors("cache", caches)),
            (_frames(pipeline, pipeline.temporal_factor), *_tensors("cache_out", caches)),
        ),
    )


def _frames(pipeline: VideoPipeline, count: int) -> TensorSpec:
    factor = pipeline.vae_scale_factor
    return TensorSpec("video", (3, count, Multiple("height", factor), Multiple("width", factor)))


def _tensors(name: str, caches: tuple[CacheSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            f"{name}_{number}",
            (cache.channels, cache.frames, Multiple("height", cache.scale), Multiple("width", cache.scale)),
        )
        for number, cache in enumerate(caches)
    )
