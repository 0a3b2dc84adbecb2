"""Real Wan pipelines of diffusers, too small to show anything: random weights in the published classes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes.pipelines import reseed, t5_tokenizer

WIDTH = 32
"""Numbers of a text state."""

IMAGE_TOKEN_WIDTH = 24
IMAGE_SIDE = 32
"""Side of the picture that the image encoder of `i2v` sees, in pixels."""


def make_wan_pipeline(folder: Path, kind: str, *, seed: int = 0, scheduler: Any = None) -> Path:
    """Write a pipeline in diffusers' layout; `kind` is one of `KINDS`, `scheduler` replaces the usual one.

    `t2v` is Wan 2.1 for text, `ti2v` is Wan 2.2 for text or a first frame (`expand_timesteps`), `ti2v-small` is it with
    the VAE of Wan 2.1, and `i2v` is Wan 2.1 for a first frame, which it gets as channels. Text encoders and VAEs of the
    same config and seed have the same weights in all kinds, so that tests can share what they export from them.
    """
    import torch

    torch.manual_seed(seed)
    pipeline = KINDS[kind]()
    if scheduler is not None:
        pipeline.register_modules(scheduler=scheduler)
    pipeline.save_pretrained(folder)
    return folder


def wan_text_encoder(tokenizer: Any) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=2 * WIDTH,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    reseed()
    return UMT5EncoderModel(config).eval()


def wan_transformer(channels: int, **more: Any) -> Any:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        **{
            "patch_size": (1, 2, 2),
            "num_attention_heads": 2,
            "attention_head_dim": 24,
            "in_channels": channels,
            "out_channels": channels,
            "text_dim": WIDTH,
            "freq_dim": 32,
            "ffn_dim": 64,
            "num_layers": 2,
            "rope_max_seq_len": 64,
        }
        | more
    ).eval()


def wan_vae() -> Any:
    """The VAE of Wan 2.1: 8 pixels and 4 frames to a latent cell of 16 numbers."""
    from diffusers import AutoencoderKLWan

    reseed()
    return AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 2, 2, 2], num_res_blocks=1, temperal_downsample=[False, True, True]
    ).eval()


def wan22_vae() -> Any:
    """The VAE of Wan 2.2: shortcuts around its blocks, patches of 2 pixels, 16 pixels to a latent cell."""
    from diffusers import AutoencoderKLWan

    channels = 12
    return AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=8,
        z_dim=channels,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        latents_mean=[0.1 * number - 0.5 for number in range(channels)],
        latents_std=[1.0 + 0.1 * number for number in range(channels)],
    ).eval()


def unipc(shift: float) -> Any:
    """The scheduler of the published pipelines."""
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def _text_to_video(vae: Any, shift: float, *, expand_timesteps: bool) -> Any:
    from diffusers import WanPipeline

    tokenizer = t5_tokenizer()
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=wan_text_encoder(tokenizer),
        vae=vae,
        scheduler=unipc(shift),
        transformer=wan_transformer(vae.config.z_dim),
        expand_timesteps=expand_timesteps,
    )


def _image_to_video() -> Any:
    from diffusers import WanImageToVideoPipeline
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    # The transformer splits text from picture at 512 tokens of text.
    tokenizer, vae = t5_tokenizer(512), wan_vae()
    encoder = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=IMAGE_TOKEN_WIDTH,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=IMAGE_SIDE,
            patch_size=8,
            hidden_act="gelu",
        )
    )
    transformer = wan_transformer(
        2 * vae.config.z_dim + 4,
        out_channels=vae.config.z_dim,
        image_dim=IMAGE_TOKEN_WIDTH,
        added_kv_proj_dim=48,
    )
    return WanImageToVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=wan_text_encoder(tokenizer),
        vae=vae,
        scheduler=unipc(3.0),
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": IMAGE_SIDE}, crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}
        ),
        image_encoder=encoder.eval(),
        transformer=transformer,
    )


KINDS: dict[str, Callable[[], Any]] = {
    "t2v": lambda: _text_to_video(wan_vae(), 3.0, expand_timesteps=False),
    "ti2v": lambda: _text_to_video(wan22_vae(), 5.0, expand_timesteps=True),
    "ti2v-small": lambda: _text_to_video(wan_vae(), 5.0, expand_timesteps=True),
    "i2v": _image_to_video,
}
"""Functions that make a tiny copy of each published pipeline, with the scheduler that it is published with."""
