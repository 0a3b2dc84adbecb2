"""Real diffusers pipelines, too small to show anything: random weights in the published classes, and tokenizers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKENS = 16
"""Tokens of a prompt in the CLIP tokenizers, the two marks included."""

T5_TOKENS = 24
SPECIALS = ("<|startoftext|>", "<|endoftext|>")


def make_pipeline(folder: Path, kind: str, *, seed: int = 0, scheduler: Any = None) -> Path:
    """Write a pipeline in diffusers' layout; `kind` is one of `KINDS`, `scheduler` replaces the usual one.

    Text encoders and VAEs of the same config and seed have the same weights in all kinds, so that tests can share what
    they export from them.
    """
    import torch

    torch.manual_seed(seed)
    pipeline = KINDS[kind]()
    pipeline.scheduler = scheduler or pipeline.scheduler
    pipeline.register_to_config(scheduler=("diffusers", type(pipeline.scheduler).__name__))
    pipeline.save_pretrained(folder)
    return folder


def reseed() -> None:
    """Restart torch's generator at its last seed, so that a network's weights do not depend on those made before."""
    import torch

    torch.manual_seed(torch.initial_seed())


def clip_tokenizer(pad: str = "<|endoftext|>", tokens: int = TOKENS) -> Any:
    """A CLIP tokenizer that knows letters, and a few syllables."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "t</w>")]
    merged = ["".join(pair) for pair in merges]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *merged, *SPECIALS]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)},
        merges=merges,
        pad_token=pad,
        model_max_length=tokens,
    )


def t5_tokenizer(tokens: int = T5_TOKENS) -> Any:
    """A T5 tokenizer that knows letters."""
    from transformers import T5Tokenizer

    letters = "▁abcdefghijklmnopqrstuvwxyz0123456789.,"
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -3.0) for letter in letters)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=tokens)


def clip(
    tokenizer: Any, *, width: int = 32, projected: bool = False, act: str = "quick_gelu", legacy: bool = True
) -> Any:
    """A CLIP text model; `legacy` ones name 2 as the end of the text, as the first published ones do."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_attention_heads=4,
        num_hidden_layers=3,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act=act,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=2 if legacy else tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_factor=3.0,
    )
    reseed()
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5(tokenizer: Any, width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    reseed()
    return T5EncoderModel(config).eval()


def vae(levels: int = 2, latents: int = 4, **more: Any) -> Any:
    """An autoencoder with a factor of 2 to the power of `levels` - 1."""
    from diffusers import AutoencoderKL

    reseed()
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=[8] * levels,
        layers_per_block=1,
        latent_channels=latents,
        norm_num_groups=4,
        sample_size=8 * 2**levels,
        **more,
    ).eval()


def unet(width: int, **more: Any) -> Any:
    """A UNet that halves its sample once and attends to `width` numbers a token."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": width,
            "attention_head_dim": 4,
            "norm_num_groups": 4,
        }
        | more
    ).eval()


ATTENTION_IN_THE_MIDDLE = {
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
}
"""Blocks of a UNet that is exported in half the time. Attention in the other blocks is that of the kind `sd`."""

DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _stable_diffusion(pad: str, scheduler: Any, pipeline: str = "StableDiffusionPipeline", **more: Any) -> Any:
    import diffusers

    tokenizer = clip_tokenizer(pad)
    return getattr(diffusers, pipeline)(
        vae=vae(levels=4),
        text_encoder=clip(tokenizer, act="gelu" if pad == "!" else "quick_gelu"),
        tokenizer=tokenizer,
        unet=unet(32, **more),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sd() -> Any:
    from diffusers import PNDMScheduler

    return _stable_diffusion("<|endoftext|>", PNDMScheduler(**DIFFUSION, skip_prk_steps=True, steps_offset=1))


def _sd2() -> Any:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        **DIFFUSION, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    return _stable_diffusion("!", scheduler, use_linear_projection=True)


def _lcm() -> Any:
    from diffusers import LCMScheduler

    return _stable_diffusion(
        "<|endoftext|>",
        LCMScheduler(**DIFFUSION),
        "LatentConsistencyModelPipeline",
        time_cond_proj_dim=16,
        **ATTENTION_IN_THE_MIDDLE,
    )


def _sdxl(scheduler: Any, zeros: bool) -> Any:
    from diffusers import StableDiffusionXLPipeline

    first, second = clip_tokenizer(), clip_tokenizer("!")
    return StableDiffusionXLPipeline(
        vae=vae(force_upcast=True),
        text_encoder=clip(first, width=16),
        text_encoder_2=clip(second, width=24, projected=True, act="gelu", legacy=False),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet(
            40,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 24,
            transformer_layers_per_block=(1, 2),
            up_block_types=("UpBlock2D", "UpBlock2D"),  # the export takes half the time; `sd` has attention there
        ),
        scheduler=scheduler,
        force_zeros_for_empty_prompt=zeros,
    )


def _sdxl_base() -> Any:
    from diffusers import EulerDiscreteScheduler

    return _sdxl(EulerDiscreteScheduler(**DIFFUSION, timestep_spacing="leading", steps_offset=1), True)


def _sdxl_turbo() -> Any:
    from diffusers import EulerAncestralDiscreteScheduler

    return _sdxl(EulerAncestralDiscreteScheduler(**DIFFUSION, timestep_spacing="trailing", steps_offset=1), False)


FLOW_VAE: dict[str, Any] = {
    "shift_factor": 0.0609,
    "scaling_factor": 1.5305,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def _sd3(*, newer: bool) -> Any:
    """SD3, or as SD3.5: more norms, a second attention, and here without the T5 that both may do without."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    first, second, third = clip_tokenizer(), clip_tokenizer("!"), t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=48,
        caption_projection_dim=32,
        pooled_projection_dim=16 + 24,
        pos_embed_max_size=12,
        **({"qk_norm": "rms_norm", "dual_attention_layers": (0,)} if newer else {}),
    )
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(**FLOW_VAE),
        text_encoder=clip(first, width=16, projected=True),
        tokenizer=first,
        text_encoder_2=clip(second, width=24, projected=True, act="gelu", legacy=False),
        tokenizer_2=second,
        text_encoder_3=None if newer else t5(third, 48),
        tokenizer_3=None if newer else third,
    )


def _flux(*, guided: bool) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    first, second = clip_tokenizer(), t5_tokenizer()
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 6, 6),
        guidance_embeds=guided,
    )
    shifting = {"use_dynamic_shifting": True, "shift": 3.0} if guided else {"shift": 1.0}
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**shifting),
        vae=vae(**FLOW_VAE),
        text_encoder=clip(first, width=16),
        tokenizer=first,
        text_encoder_2=t5(second, 48),
        tokenizer_2=second,
        transformer=transformer.eval(),
    )


KINDS: dict[str, Callable[[], Any]] = {
    "sd": _sd,
    "sd2": _sd2,
    "lcm": _lcm,
    "sdxl": _sdxl_base,
    "sdxl-turbo": _sdxl_turbo,
    "sd3": lambda: _sd3(newer=False),
    "sd3.5": lambda: _sd3(newer=True),
    "flux": lambda: _flux(guided=False),
    "flux-dev": lambda: _flux(guided=True),
}
"""Functions that make a tiny copy of each published pipeline, with the scheduler that it is published with."""
