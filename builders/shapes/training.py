"""The recipe: every stage of the training, one after the other, each of which can be resumed."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from builders.shapes.course import Course, Tell
from builders.shapes.crew import Crew
from builders.shapes.evaluation import evaluate
from builders.shapes.latents import make_pool
from builders.shapes.networks import Sizes, assemble, save
from builders.shapes.text_training import train_text
from builders.shapes.tokenizer import make_tokenizer
from builders.shapes.unet_training import train_unet
from builders.shapes.vae_training import train_vae

VAE = Course("vae", 3_000, 2e-3, warm=50, decay=1e-4)
TEXT = Course("text", 1_500, 1e-3, last=0.1)
UNET = Course("unet", 3_600, 1e-3, held=0.4, last=0.02, averaged=True)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained and for how long; the defaults made the weights that come with the project."""

    sizes: Sizes = field(default_factory=Sizes)
    vae: Course = VAE
    vae_pictures: int = 6_000
    text: Course = TEXT
    pool: int = 12_800
    unet: Course = UNET
    looked_at: int = 64
    """Held-out pictures that are drawn and judged whenever the UNet is kept; 0 for none."""


def train(crew: Crew, work: Path, weights: Path, recipe: Recipe, tell: Tell) -> None:
    """Train in `work`, which keeps what every stage has reached, and write the pipeline to `weights` as it improves.

    Every member of a crew calls this; `tell` is called by the one that leads.
    """
    if not crew.leads:
        tell = _hush
    if not crew.leads:
        crew.wait()
    # The small stages are the leader's; the others load what it has written.
    tokenizer = make_tokenizer(work / "tokenizer")
    vae = train_vae(work, recipe.vae, recipe.vae_pictures, recipe.sizes, tell)
    pool = make_pool(work, vae, recipe.pool, tell)
    text = train_text(work, recipe.text, tokenizer, recipe.sizes, tell)
    if crew.leads:
        crew.wait()

    def on_keep(step: int, encoder: Any, unet: Any) -> None:
        pipeline = assemble(vae, encoder, tokenizer, unet)
        save(pipeline, weights)
        if recipe.looked_at:
            tell(f"unet: step {step} on held-out prompts\n{evaluate(pipeline, recipe.looked_at).table()}")

    train_unet(work, recipe.unet, pool, tokenizer, text, recipe.sizes, crew, tell, on_keep)


def _hush(line: str) -> None:
    pass


def shortened(recipe: Recipe, vae: int | None, text: int | None, unet: int | None) -> Recipe:
    """The recipe with other numbers of steps, where given."""
    return replace(
        recipe,
        vae=replace(recipe.vae, steps=vae or recipe.vae.steps),
        text=replace(recipe.text, steps=text or recipe.text.steps),
        unet=replace(recipe.unet, steps=unet or recipe.unet.steps),
    )
