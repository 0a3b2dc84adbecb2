"""The networks of the pipeline: stock classes of diffusers and transformers, small enough to train on two cores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from builders.checkpoint import FROM_PRETRAINED_OPTIONS
from training.common.pipelines import save_pipeline_as
from training.shapes.rendering import IMAGE_SIZE
from training.shapes.tokenizer import MAX_PROMPT_TOKENS, make_tokenizer

WEIGHTS = Path(__file__).parents[2] / "builders" / "shapes" / "weights"
"""Folder of the trained pipeline: diffusers' layout, fp16 safetensors."""

GUIDANCE = 3.0
STEPS = 20


@dataclass(frozen=True, slots=True)
class NetworkSizes:
    """Sizes of the networks. The defaults are those of the trained weights."""

    vae: tuple[int, ...] = (8, 16, 32, 64)
    latent_channels: int = 4
    text_width: int = 128
    text_layers: int = 2
    unet: tuple[int, ...] = (64, 96, 128)
    heads: int = 4
    norm_groups: int = 8


TINY = NetworkSizes(vae=(8, 8, 8, 8), text_width=32, text_layers=1, unet=(8, 16), heads=2, norm_groups=4)
"""Sizes for tests, where a step takes milliseconds."""


def new_vae(sizes: NetworkSizes = NetworkSizes()) -> Any:
    """Return an untrained `AutoencoderKL` with a scale factor of 8 and 4 latent channels."""
    from diffusers import AutoencoderKL

    levels = len(sizes.vae)
    vae = AutoencoderKL(
        sample_size=IMAGE_SIZE,
        latent_channels=sizes.latent_channels,
        block_out_channels=sizes.vae,
        layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        # One group: a group per channel would normalise the brightness of each channel away, and with it the colours.
        norm_num_groups=1,
        mid_block_add_attention=False,
    )
    return vae.to(memory_format=torch.channels_last)


def new_text_encoder(tokenizer: Any, sizes: NetworkSizes = NetworkSizes()) -> Any:
    """Return an untrained `CLIPTextModel` for the tokenizer's vocabulary."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.text_width,
            intermediate_size=4 * sizes.text_width,
            projection_dim=sizes.text_width,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=4,
            max_position_embeddings=MAX_PROMPT_TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_unet(sizes: NetworkSizes = NetworkSizes()) -> Any:
    """Return an untrained `UNet2DConditionModel` with cross-attention at every level but the first."""
    from diffusers import UNet2DConditionModel

    deeper = len(sizes.unet) - 1
    unet = UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 8,
        in_channels=sizes.latent_channels,
        out_channels=sizes.latent_channels,
        block_out_channels=sizes.unet,
        layers_per_block=1,
        down_block_types=["DownBlock2D"] + ["CrossAttnDownBlock2D"] * deeper,
        up_block_types=["CrossAttnUpBlock2D"] * deeper + ["UpBlock2D"],
        cross_attention_dim=sizes.text_width,
        attention_head_dim=sizes.heads,
        norm_num_groups=sizes.norm_groups,
        # The text is added to the time embedding too, so that it reaches the blocks without cross-attention.
        addition_embed_type="text",
        addition_embed_type_num_heads=sizes.heads,
    )
    # The added embedding ends in a norm, so it is as large as the time embedding. At first the time should dominate.
    torch.nn.init.constant_(unet.add_embedding.norm2.weight, 0.1)
    return unet.to(memory_format=torch.channels_last)


def new_scheduler() -> Any:
    """Return a DDIM scheduler with v-prediction and zero terminal SNR, without which plain backgrounds keep a
    brightness near the mean."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        steps_offset=1,
    )


def make_pipeline(vae: Any, text_encoder: Any, tokenizer: Any, unet: Any) -> Any:
    """Return a `StableDiffusionPipeline` of these parts, without a safety checker and without a progress bar."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_pipeline(folder: Path, seed: int = 0) -> Any:
    """Return a pipeline with random weights at the sizes `TINY`, and write it to `folder`. For tests."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(folder / "tokenizer")
    pipeline = make_pipeline(new_vae(TINY), new_text_encoder(tokenizer, TINY), tokenizer, new_unet(TINY))
    save_pipeline(pipeline, folder, torch.float32)
    return pipeline


def save_pipeline(pipeline: Any, folder: Path, dtype: Any = torch.float16) -> None:
    """Write the pipeline as a diffusers folder of safetensors in `dtype`; the pipeline keeps its own precision."""
    save_pipeline_as(pipeline, folder, dtype, ("vae", "text_encoder", "unet"), make_pipeline)
    # Write the tokenizer again, with the older files that transformers leaves out.
    make_tokenizer(folder / "tokenizer")


def load_pipeline(folder: Path = WEIGHTS) -> Any:
    """Load a pipeline in float32, without a progress bar. Raises OSError if the folder has none."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **FROM_PRETRAINED_OPTIONS)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
