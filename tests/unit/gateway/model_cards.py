"""Cards of models that are only configured as far as a test needs it."""

from dataclasses import replace

from gateway.model_card import card
from gateway.triton.model_config import ModelConfig


def card_of(config: ModelConfig, *operations: str) -> card.ModelCard:
    """The card of a model that offers these operations."""
    quoted = ", ".join(f'"{name}"' for name in operations)
    parameters = {"signature": "unused", "operations": f"[{quoted}]", **config.parameters}
    return card.parse(replace(config, parameters=parameters))
