"""The whole training: all stages in order. Each of them can be resumed."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training.common.process_group import ProcessGroup
from training.common.training_loop import LogLine, StageConfig
from training.moving_shapes.evaluation import evaluate
from training.moving_shapes.latent_dataset import load_or_encode_latents
from training.moving_shapes.networks import NetworkSizes, make_pipeline, save_pipeline
from training.moving_shapes.tokenizer import make_tokenizer
from training.moving_shapes.train_text_encoder import train_text_encoder
from training.moving_shapes.train_transformer import train_transformer
from training.moving_shapes.train_vae import refine_decoder, train_vae

VAE_STAGE = StageConfig("vae", 3_000, 2e-3, warmup_steps=50, weight_decay=1e-4, save_steps=300)
TEXT_STAGE = StageConfig("text", 1_200, 1e-3, final_fraction=0.05)
TRANSFORMER_STAGE = StageConfig(
    "transformer",
    9_000,
    1e-3,
    constant_fraction=0.4,
    final_fraction=0.02,
    uses_ema=True,
    muon_prefix="blocks.",
    save_steps=250,
)
DECODER_STAGE = StageConfig("decoder", 800, 1e-3, warmup_steps=50, weight_decay=1e-4, save_steps=200)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Sizes of the networks and lengths of the stages. The defaults are those of the packaged weights."""

    sizes: NetworkSizes = field(default_factory=NetworkSizes)
    vae: StageConfig = VAE_STAGE
    text: StageConfig = TEXT_STAGE
    num_latents: int = 12_288
    transformer: StageConfig = TRANSFORMER_STAGE
    decoder: StageConfig = DECODER_STAGE
    num_evaluated_clips: int = 36
    """Held-out clips that are generated and judged whenever the transformer is evaluated; 0 for none."""

    evaluation_steps: int = 1_000
    """Steps of the transformer between two evaluations."""


def train(group: ProcessGroup, work: Path, weights: Path, config: TrainingConfig, log: LogLine) -> None:
    """Train all stages, and write the pipeline to the folder `weights` whenever the transformer is saved.

    The folder `work` keeps the state of each stage. Every process of the group calls this; only the leader logs.
    """
    if not group.is_leader:
        log = _discard
    tokenizer = make_tokenizer(work / f"tokenizer-{group.rank}")
    encoder = train_text_encoder(work, config.text, tokenizer, config.sizes, group, log)
    vae = train_vae(work, config.vae, config.sizes, group, log)
    dataset = load_or_encode_latents(work, vae, config.num_latents, group, log)

    def on_save(step: int, transformer: Any) -> None:
        pipeline = make_pipeline(vae, encoder, tokenizer, transformer)
        save_pipeline(pipeline, weights)
        if config.num_evaluated_clips and step % config.evaluation_steps == 0:
            table = evaluate(pipeline, config.num_evaluated_clips).table()
            log(f"transformer: step {step} on held-out prompts\n{table}")

    transformer = train_transformer(
        work, config.transformer, dataset, tokenizer, encoder, config.sizes, group, log, on_save
    )
    refine_decoder(work, config.decoder, vae, group, log)
    if group.is_leader:
        on_save(config.transformer.steps, transformer)


def _discard(line: str) -> None:
    pass


def with_steps(config: TrainingConfig, vae: int | None, text: int | None, transformer: int | None) -> TrainingConfig:
    """Return the config with other numbers of steps for the stages where one is given."""
    return replace(
        config,
        vae=replace(config.vae, steps=vae or config.vae.steps),
        text=replace(config.text, steps=text or config.text.steps),
        transformer=replace(config.transformer, steps=transformer or config.transformer.steps),
    )
