"""Split a vision-language checkpoint; runs in a process of its own, see `builders.subprocess_step`."""

import warnings
from pathlib import Path
from typing import Any

from builders.checkpoint import FROM_PRETRAINED_OPTIONS

OPSET = 17
"""The newest ONNX opset that torch's tracing exporter writes without a converter."""


def split(input: str, text: str, engine: str, tile: int, tokens: int) -> None:
    """Write the parts of the checkpoint in the folder `input`.

    `text` becomes the text model as a checkpoint of its own; `engine` gets `embedding.npy` and `vision.onnx`. `tile` is
    the side of a tile in pixels, `tokens` the number of vectors that the model makes of one. Raises SystemExit if it
    makes another number.
    """
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()
    print("Reading the checkpoint", flush=True)  # noqa: T201
    model = AutoModelForImageTextToText.from_pretrained(
        input, dtype=torch.float32, attn_implementation="eager", **FROM_PRETRAINED_OPTIONS
    ).eval()
    with torch.inference_mode():
        print("Writing the text model", flush=True)  # noqa: T201
        _save_text(model, Path(text))
        _save_embedding(model, Path(engine) / "embedding.npy")
        print("Writing the image encoder", flush=True)  # noqa: T201
        _save_encoder(model, Path(engine) / "vision.onnx", tile, tokens)


def _save_text(model: Any, folder: Path) -> None:
    """Write the Llama inside as a checkpoint. Its last matrix is written even if it shares the embedding's."""
    import torch
    from transformers import LlamaForCausalLM

    config = model.config.text_config
    config.tie_word_embeddings = False
    with torch.device("meta"):
        text = LlamaForCausalLM(config)
    state = {f"model.{name}": value for name, value in model.model.text_model.state_dict().items()}
    state["lm_head.weight"] = model.lm_head.weight.detach().clone()
    text.load_state_dict(state, assign=True)
    text.save_pretrained(folder)


def _save_embedding(model: Any, path: Path) -> None:
    """Write the embedding matrix, float32[vocabulary, hidden size], as a file that can be memory-mapped."""
    import numpy as np

    np.save(path, model.get_input_embeddings().weight.detach().float().numpy())


def _save_encoder(model: Any, path: Path, tile: int, tokens: int) -> None:
    """Export the encoder: float32[n, 3, tile, tile] to float32[n, tokens, hidden size]."""
    import torch

    encoder = _encoder(model, tile)
    tiles = torch.zeros(2, 3, tile, tile)
    found = encoder(tiles).shape[1]
    if found != tokens:
        raise SystemExit(f"The connector makes {found} vectors of a tile; the preprocessor promises {tokens}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that the shapes of a tile become constants, which is intended
        torch.onnx.export(
            encoder,
            (tiles,),
            str(path),
            input_names=["pixel_values"],
            output_names=["features"],
            dynamic_axes={"pixel_values": {0: "tiles"}, "features": {0: "tiles"}},
            opset_version=OPSET,
            dynamo=False,
        )


def _encoder(model: Any, tile: int) -> Any:
    """Return image encoder and connector as one module, for whole tiles without padding."""
    import torch

    vision = model.model.vision_model

    class Encoder(torch.nn.Module):  # type: ignore[misc]
        """Encoder and connector. Positions are computed once: they are the same for all tiles without padding."""

        def __init__(self) -> None:
            super().__init__()
            self.patches = vision.embeddings.patch_embedding
            self.layers = vision.encoder.layers
            self.norm = vision.post_layernorm
            self.connector = model.model.connector
            self.register_buffer("positions", _positions(vision, tile))

        def forward(self, pixels: Any) -> Any:
            hidden = self.patches(pixels).flatten(2).transpose(1, 2) + self.positions
            for layer in self.layers:
                hidden = layer(hidden, None)
            return self.connector(self.norm(hidden))

    return Encoder().eval()


def _positions(vision: Any, tile: int) -> Any:
    """Return the position embeddings that the model chooses for a tile without padding: float32[1, patches, size]."""
    import torch

    chosen: list[Any] = []
    table = vision.embeddings.position_embedding
    hook = table.register_forward_pre_hook(lambda module, arguments: chosen.append(arguments[0]))
    side = tile // vision.config.patch_size
    vision.embeddings(torch.zeros(1, 3, tile, tile), torch.ones(1, side, side, dtype=torch.bool))
    hook.remove()
    return table(chosen[0]).detach().clone()
