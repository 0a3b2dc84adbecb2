"""The networks of the pipeline: stock classes of diffusers and transformers, small enough to train on two cores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from builders.checkpoint import FROM_PRETRAINED_OPTIONS
from training.common.pipelines import save_pipeline_as
from training.moving_shapes.tokenizer import make_tokenizer

WEIGHTS = Path(__file__).parents[2] / "builders" / "moving_shapes" / "weights"
"""Folder of the trained pipeline: diffusers' layout, fp16 safetensors."""

GUIDANCE = 3.0
STEPS = 20

SHIFT = 5.0
"""Shift of the sampler's noise levels towards pure noise, where the motion is decided."""


@dataclass(frozen=True, slots=True)
class NetworkSizes:
    """Sizes of the networks. The defaults are those of the trained weights."""

    vae: int = 24
    latent_channels: int = 16
    text_width: int = 128
    text_layers: int = 2
    transformer_heads: int = 6
    transformer_head_width: int = 32
    transformer_layers: int = 7
    transformer_ffn: int = 512


TINY = NetworkSizes(8, 16, 32, 1, 2, 12, 1, 24)
"""Sizes for tests, where a step takes milliseconds."""


def new_vae(sizes: NetworkSizes = NetworkSizes()) -> Any:
    """Return an untrained `AutoencoderKLWan` of Wan 2.2's kind: it works on patches of 2 by 2 pixels and has shortcuts
    that average and repeat. A latent cell is 8 by 8 pixels and 4 frames; the first frame has cells of its own."""
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=sizes.vae,
        z_dim=sizes.latent_channels,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * sizes.latent_channels,
        latents_std=[1.0] * sizes.latent_channels,
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
    )


def new_text_encoder(tokenizer: Any, sizes: NetworkSizes = NetworkSizes()) -> Any:
    """Return an untrained `UMT5EncoderModel` for the tokenizer's vocabulary."""
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=sizes.text_width,
            d_kv=sizes.text_width // 4,
            d_ff=2 * sizes.text_width,
            num_layers=sizes.text_layers,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def new_transformer(sizes: NetworkSizes = NetworkSizes()) -> Any:
    """Return an untrained `WanTransformer3DModel`, whose token is 2 by 2 latent cells of one latent frame."""
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=sizes.transformer_heads,
        attention_head_dim=sizes.transformer_head_width,
        in_channels=sizes.latent_channels,
        out_channels=sizes.latent_channels,
        text_dim=sizes.text_width,
        freq_dim=128,
        ffn_dim=sizes.transformer_ffn,
        num_layers=sizes.transformer_layers,
        cross_attn_norm=True,
        rope_max_seq_len=64,
    )


def new_scheduler() -> Any:
    """Return the scheduler of flow matching, with noise levels shifted by `SHIFT`."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=SHIFT)


def make_pipeline(vae: Any, text_encoder: Any, tokenizer: Any, transformer: Any) -> Any:
    """Return a `WanPipeline` of these parts, with a timestep for each token and without a progress bar."""
    from diffusers import WanPipeline

    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        scheduler=new_scheduler(),
        transformer=transformer,
        expand_timesteps=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_pipeline(folder: Path, seed: int = 0) -> Any:
    """Return a pipeline with random weights at the sizes `TINY`, and write it to `folder`. For tests."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(folder / "tokenizer")
    pipeline = make_pipeline(new_vae(TINY), new_text_encoder(tokenizer, TINY), tokenizer, new_transformer(TINY))
    save_pipeline(pipeline, folder, torch.float32)
    return pipeline


def save_pipeline(pipeline: Any, folder: Path, dtype: Any = torch.float16) -> None:
    """Write the pipeline as a diffusers folder of safetensors in `dtype`; the pipeline keeps its own precision."""
    save_pipeline_as(pipeline, folder, dtype, ("vae", "text_encoder", "transformer"), make_pipeline)


def load_pipeline(folder: Path = WEIGHTS) -> Any:
    """Load a pipeline in float32, without a progress bar. Raises OSError if the folder has none."""
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(folder, dtype=torch.float32, **FROM_PRETRAINED_OPTIONS)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
