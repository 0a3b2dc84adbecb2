"""A real AnimateDiff pipeline of diffusers, too small to show anything: random weights in the published classes."""

from pathlib import Path
from typing import Any

from tests.fakes.pipelines import clip, clip_tokenizer, make_pipeline, reseed, unet, vae

MAX_FRAMES = 12
"""Frames for which the motion layers have positions."""


def make_animatediff_pipeline(folder: Path, *, seed: int = 0, scheduler: Any = None) -> Path:
    """Write a pipeline whose UNet holds the motion layers, in diffusers' layout; `scheduler` replaces DDIM."""
    import torch
    from diffusers import AnimateDiffPipeline, UNetMotionModel

    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    AnimateDiffPipeline(
        vae=vae(levels=4),
        text_encoder=clip(tokenizer),
        tokenizer=tokenizer,
        unet=UNetMotionModel.from_unet2d(unet(32), _adapter()).eval(),
        motion_adapter=None,
        scheduler=scheduler or _ddim(),
    ).save_pretrained(folder)
    return folder


def make_base_and_adapter(folder: Path, *, seed: int = 0) -> tuple[Path, Path]:
    """Write a Stable Diffusion pipeline and a motion adapter for it; return their folders."""
    base = make_pipeline(folder / "base", "sd", seed=seed)
    _adapter().save_pretrained(folder / "adapter")
    return base, folder / "adapter"


def _adapter() -> Any:
    """A motion adapter whose last layers are not zeros, as those of an untrained one are."""
    import torch
    from diffusers import MotionAdapter

    reseed()
    adapter = MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=MAX_FRAMES,
    ).eval()
    with torch.no_grad():
        for name, weight in adapter.named_parameters():
            if "proj_out" in name:
                weight.normal_(0, 0.2)
    return adapter


def _ddim() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="linspace",
    )
