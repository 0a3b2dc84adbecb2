"""The whole training: both stages in order. Each of them can be resumed."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training.common.process_group import ProcessGroup
from training.common.training_loop import LogLine, StageConfig
from training.shapes_captioner.evaluation import evaluate, held_out_pictures
from training.shapes_captioner.networks import NetworkSizes, save_captioner
from training.shapes_captioner.tokenizer import make_tokenizer
from training.shapes_captioner.train_captioner import train_captioner
from training.shapes_captioner.train_vision import train_vision

VISION_STAGE = StageConfig(
    "vision", 1_500, 1e-3, final_fraction=0.1, muon_prefix=("vision.encoder.layers.", "connector."), save_steps=250
)
CAPTIONER_STAGE = StageConfig(
    "captioner",
    4_000,
    1e-3,
    constant_fraction=0.4,
    final_fraction=0.02,
    uses_ema=True,
    muon_prefix=("model.vision_model.encoder.layers.", "model.connector.", "model.text_model.layers."),
    save_steps=250,
)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Sizes of the networks and lengths of the stages. The defaults are those of the trained weights."""

    sizes: NetworkSizes = field(default_factory=NetworkSizes)
    vision: StageConfig = VISION_STAGE
    captioner: StageConfig = CAPTIONER_STAGE
    num_evaluated_pictures: int = 64
    """Held-out pictures that are described and judged whenever the model is evaluated; 0 for none."""

    evaluation_steps: int = 1_000
    """Steps of the captioner between two evaluations."""


def train(group: ProcessGroup, work: Path, weights: Path, config: TrainingConfig, log: LogLine) -> None:
    """Train both stages, and write the model to the folder `weights` whenever the captioner is saved.

    The folder `work` keeps the state of each stage. Every process of the group calls this; only the leader logs.
    """
    if not group.is_leader:
        log = _discard
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    captioner = train_vision(work, config.vision, tokenizer, config.sizes, group, log)

    def on_save(step: int, model: Any) -> None:
        save_captioner(model, tokenizer, weights)
        if config.num_evaluated_pictures and (step % config.evaluation_steps == 0 or step == config.captioner.steps):
            table = evaluate(model, tokenizer, held_out_pictures(config.num_evaluated_pictures)).table()
            log(f"captioner: step {step} on held-out pictures\n{table}")

    train_captioner(work, config.captioner, captioner, tokenizer, group, log, on_save)


def _discard(line: str) -> None:
    pass


def with_steps(config: TrainingConfig, vision: int | None, captioner: int | None) -> TrainingConfig:
    """Return the config with other numbers of steps for the stages where one is given."""
    return replace(
        config,
        vision=replace(config.vision, steps=vision or config.vision.steps),
        captioner=replace(config.captioner, steps=captioner or config.captioner.steps),
    )
