"""Write the `pipeline.json` of a video model, and its tokenizer next to it."""

from pathlib import Path
from typing import Any

from builders.checkpoint import read_json
from builders.diffusion.pipeline import tokenizer_folder
from builders.diffusion.pipeline_json import describe_scheduler, part_model_name, write_description, write_tokenizer
from builders.errors import UnsupportedModel
from builders.video.motion_pipeline import MotionPipeline
from builders.video.pipeline import VideoPipeline
from builders.video.vae_caches import decoder_caches, encoder_caches


def describe(pipeline: VideoPipeline, name: str) -> dict[str, Any]:
    """Return the description of a pipeline whose part models are named after `name`, without `pad_id`s.

    Raises UnsupportedModel for an image processor that is not built.
    """
    if isinstance(pipeline, MotionPipeline):
        return _describe_motion(pipeline, name)
    components = {
        "text_encoders": [part_model_name(name, "text-encoder")],
        "denoiser": part_model_name(name, "denoiser"),
        "vae_encoder": part_model_name(name, "vae-encoder-first"),
        "vae_encoder_next": part_model_name(name, "vae-encoder-next"),
        "vae_decoder": part_model_name(name, "vae-decoder-first"),
        "vae_decoder_next": part_model_name(name, "vae-decoder-next"),
    }
    description: dict[str, Any] = {
        "family": pipeline.family,
        "components": components,
        "tokenizers": [
            {
                "folder": tokenizer_folder("text_encoder"),
                "max_length": pipeline.num_tokens,
                "outputs": ["hidden_states"],
            }
        ],
        "scheduler": describe_scheduler(pipeline),
        "vae": {
            "scaling_factor": 1.0,
            "shift_factor": 0.0,
            "factor": pipeline.vae_scale_factor,
            "temporal_factor": pipeline.temporal_factor,
            "channels": pipeline.latent_channels,
            **pipeline.latent_statistics,
            "encoder_caches": len(encoder_caches(pipeline)),
            "decoder_caches": len(decoder_caches(pipeline)),
        },
        "guidance": "classifier-free",
        "size_multiple": pipeline.size_multiple,
        "patch_size": list(pipeline.patch_size),
        "expand_timesteps": pipeline.expand_timesteps,
        "image_conditioning": pipeline.image_conditioning,
    }
    if pipeline.image_conditioning == "channels":
        description["condition_channels"] = pipeline.condition_channels
    if pipeline.has_image_encoder:
        components["image_encoder"] = part_model_name(name, "image-encoder")
        description["image_processor"] = _image_processor(pipeline)
    return description


def _describe_motion(pipeline: MotionPipeline, name: str) -> dict[str, Any]:
    """Return the description of an AnimateDiff pipeline, in which one VAE takes the first frame and all others."""
    vae = pipeline.config("vae")
    encoder, decoder = part_model_name(name, "vae-encoder"), part_model_name(name, "vae-decoder")
    return {
        "family": pipeline.family,
        "components": {
            "text_encoders": [part_model_name(name, "text-encoder")],
            "denoiser": part_model_name(name, "denoiser"),
            "vae_encoder": encoder,
            "vae_encoder_next": encoder,
            "vae_decoder": decoder,
            "vae_decoder_next": decoder,
        },
        "tokenizers": [
            {
                "folder": tokenizer_folder("text_encoder"),
                "max_length": pipeline.num_tokens,
                "outputs": ["hidden_states"],
            }
        ],
        "scheduler": describe_scheduler(pipeline),
        "vae": {
            "scaling_factor": vae.get("scaling_factor") or 0.18215,
            "shift_factor": 0.0,
            "factor": pipeline.vae_scale_factor,
            "temporal_factor": pipeline.temporal_factor,
            "channels": pipeline.latent_channels,
            "encoder_caches": 0,
            "decoder_caches": 0,
        },
        "guidance": "classifier-free",
        "size_multiple": pipeline.size_multiple,
        "expand_timesteps": False,
        "image_conditioning": "none",
    }


def _image_processor(pipeline: VideoPipeline) -> dict[str, Any]:
    """Return how pictures are prepared for the image encoder: resized so that the shorter side fits, and cropped."""
    config = read_json(pipeline.folder / "image_processor" / "preprocessor_config.json", needed=True)
    side = pipeline.config("image_encoder")["image_size"]
    kind = config.get("image_processor_type") or config.get("feature_extractor_type")
    wanted = {"shortest_edge": side}, {"height": side, "width": side}
    if not str(kind).startswith("CLIP") or (config.get("size"), config.get("crop_size")) != wanted:
        raise UnsupportedModel(f"The image_processor of this pipeline is {kind} with sizes that are not built.")
    if config.get("resample", 3) != 3:
        raise UnsupportedModel(f"The image_processor resamples by method {config['resample']}; 3, bicubic, is built.")
    return {"size": side, "resample": "bicubic", "mean": config["image_mean"], "std": config["image_std"]}


def write(pipeline: VideoPipeline, name: str, folder: Path, max_batch: int = 16) -> dict[str, Any]:
    """Write `pipeline.json` and the tokenizer into `folder`; return the description.

    `max_batch` is the largest batch of each engine, in rows. Raises SourceUnavailable, UnsupportedModel.
    """
    description = describe(pipeline, name) | {"max_batch": max_batch}
    (entry,) = description["tokenizers"]
    entry["pad_id"] = write_tokenizer(pipeline.folder / entry["folder"], folder / entry["folder"], entry["max_length"])
    write_description(description, folder)
    return description
