"""The recipe: every stage of the training, one after the other, each of which can be resumed."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training.shapes.evaluation import evaluate
from training.shapes.latent_dataset import load_or_encode_latents
from training.shapes.networks import NetworkSizes, make_pipeline, save_pipeline
from training.shapes.process_group import ProcessGroup
from training.shapes.tokenizer import make_tokenizer
from training.shapes.train_text_encoder import train_text_encoder
from training.shapes.train_unet import train_unet
from training.shapes.train_vae import train_vae
from training.shapes.training_loop import LogLine, StageConfig

VAE_STAGE = StageConfig("vae", 3_000, 2e-3, warmup_steps=50, weight_decay=1e-4)
TEXT_STAGE = StageConfig("text", 1_500, 1e-3, final_fraction=0.1)
UNET_STAGE = StageConfig("unet", 3_600, 1e-3, constant_fraction=0.4, final_fraction=0.02, uses_ema=True)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """What is trained and for how long; the defaults made the weights that come with the project."""

    sizes: NetworkSizes = field(default_factory=NetworkSizes)
    vae: StageConfig = VAE_STAGE
    num_vae_images: int = 6_000
    text: StageConfig = TEXT_STAGE
    num_latents: int = 12_800
    unet: StageConfig = UNET_STAGE
    num_evaluated_images: int = 64
    """Held-out pictures that are drawn and judged whenever the UNet is kept; 0 for none."""


def train(crew: ProcessGroup, work: Path, weights: Path, recipe: TrainingConfig, tell: LogLine) -> None:
    """Train in `work`, which keeps what every stage has reached, and write the pipeline to `weights` as it improves.

    Every member of a crew calls this; `tell` is called by the one that leads.
    """
    if not crew.is_leader:
        tell = _hush
    if not crew.is_leader:
        crew.barrier()
    # The small stages are the leader's; the others load what it has written.
    tokenizer = make_tokenizer(work / "tokenizer")
    vae = train_vae(work, recipe.vae, recipe.num_vae_images, recipe.sizes, tell)
    pool = load_or_encode_latents(work, vae, recipe.num_latents, tell)
    text = train_text_encoder(work, recipe.text, tokenizer, recipe.sizes, tell)
    if crew.is_leader:
        crew.barrier()

    def on_keep(step: int, encoder: Any, unet: Any) -> None:
        pipeline = make_pipeline(vae, encoder, tokenizer, unet)
        save_pipeline(pipeline, weights)
        if recipe.num_evaluated_images:
            tell(f"unet: step {step} on held-out prompts\n{evaluate(pipeline, recipe.num_evaluated_images).table()}")

    train_unet(work, recipe.unet, pool, tokenizer, text, recipe.sizes, crew, tell, on_keep)


def _hush(line: str) -> None:
    pass


def with_steps(recipe: TrainingConfig, vae: int | None, text: int | None, unet: int | None) -> TrainingConfig:
    """The recipe with other numbers of steps, where given."""
    return replace(
        recipe,
        vae=replace(recipe.vae, steps=vae or recipe.vae.steps),
        text=replace(recipe.text, steps=text or recipe.text.steps),
        unet=replace(recipe.unet, steps=unet or recipe.unet.steps),
    )
