"""The whole training: all stages in order. Each of them can be resumed."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training.common.process_group import ProcessGroup
from training.common.training_loop import LogLine, StageConfig
from training.shapes.evaluation import evaluate
from training.shapes.latent_dataset import load_or_encode_latents
from training.shapes.networks import NetworkSizes, make_pipeline, save_pipeline
from training.shapes.tokenizer import make_tokenizer
from training.shapes.train_text_encoder import train_text_encoder
from training.shapes.train_unet import train_unet
from training.shapes.train_vae import train_vae

VAE_STAGE = StageConfig("vae", 3_000, 2e-3, warmup_steps=50, weight_decay=1e-4)
TEXT_STAGE = StageConfig("text", 1_500, 1e-3, final_fraction=0.1)
UNET_STAGE = StageConfig("unet", 3_600, 1e-3, constant_fraction=0.4, final_fraction=0.02, uses_ema=True)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Sizes of the networks and lengths of the stages. The defaults are those of the packaged weights."""

    sizes: NetworkSizes = field(default_factory=NetworkSizes)
    vae: StageConfig = VAE_STAGE
    num_vae_images: int = 6_000
    text: StageConfig = TEXT_STAGE
    num_latents: int = 12_800
    unet: StageConfig = UNET_STAGE
    num_evaluated_images: int = 64
    """Held-out images that are generated and judged whenever the UNet is saved; 0 for none."""


def train(group: ProcessGroup, work: Path, weights: Path, config: TrainingConfig, log: LogLine) -> None:
    """Train all stages, and write the pipeline to the folder `weights` whenever the UNet is saved.

    The folder `work` keeps the state of each stage. Every process of the group calls this; only the leader logs.
    """
    if not group.is_leader:
        log = _discard
    if not group.is_leader:
        group.barrier()
    # The leader trains the small stages; the other processes load its results.
    tokenizer = make_tokenizer(work / "tokenizer")
    vae = train_vae(work, config.vae, config.num_vae_images, config.sizes, log)
    dataset = load_or_encode_latents(work, vae, config.num_latents, log)
    text = train_text_encoder(work, config.text, tokenizer, config.sizes, log)
    if group.is_leader:
        group.barrier()

    def on_save(step: int, encoder: Any, unet: Any) -> None:
        pipeline = make_pipeline(vae, encoder, tokenizer, unet)
        save_pipeline(pipeline, weights)
        if config.num_evaluated_images:
            log(f"unet: step {step} on held-out prompts\n{evaluate(pipeline, config.num_evaluated_images).table()}")

    train_unet(work, config.unet, dataset, tokenizer, text, config.sizes, group, log, on_save)


def _discard(line: str) -> None:
    pass


def with_steps(config: TrainingConfig, vae: int | None, text: int | None, unet: int | None) -> TrainingConfig:
    """Return the config with other numbers of steps for the stages where one is given."""
    return replace(
        config,
        vae=replace(config.vae, steps=vae or config.vae.steps),
        text=replace(config.text, steps=text or config.text.steps),
        unet=replace(config.unet, steps=unet or config.unet.steps),
    )
