"""The decoder's configuration, from genai_config.json and generation_config.json in the folder of the ONNX model.

The onnxruntime-genai builder writes both files: https://onnxruntime.ai/docs/genai/reference/config.html.
"""

from dataclasses import dataclass
from pathlib import Path

from backends.llm.model_files import as_token_ids, read_json_object


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The parts of both files that the model runner and the scheduler need.

    `model` is the path of the ONNX file. `bos` is None if the checkpoint has no beginning-of-sequence token; each of
    `eos` ends a sequence. `input_names` and `output_names` map the builder's names to those of the ONNX graph; a name
    with `%d` stands for one tensor per layer.
    """

    model: Path
    num_layers: int
    num_kv_heads: int
    head_size: int
    vocab_size: int
    context_length: int
    bos: int | None
    eos: frozenset[int]
    input_names: dict[str, str]
    output_names: dict[str, str]

    @property
    def takes_embeddings(self) -> bool:
        """True if the model takes token embeddings instead of ids; the matrix is `embedding.npy` in the same folder."""
        return "input_ids" not in self.input_names


def read_decoder_config(folder: Path) -> DecoderConfig:
    """Read both files from an engine's folder.

    Raises `FileNotFoundError` or `ValueError` with a sentence that names the file.
    """
    config = read_json_object(
        folder / "genai_config.json", "the onnxruntime-genai builder writes it into the model's folder"
    )
    generation_path = folder / "generation_config.json"
    generation = read_json_object(generation_path) if generation_path.is_file() else {}
    try:
        model = config["model"]
        decoder = model["decoder"]
        path = folder / decoder["filename"]
        decoder_config = DecoderConfig(
            model=path,
            num_layers=int(decoder["num_hidden_layers"]),
            num_kv_heads=int(decoder["num_key_value_heads"]),
            head_size=int(decoder["head_size"]),
            vocab_size=int(model["vocab_size"]),
            context_length=int(model["context_length"]),
            bos=next(iter(as_token_ids(model.get("bos_token_id"))), None),
            # Chat checkpoints often list the token that ends a turn in only one of the two files.
            eos=frozenset(as_token_ids(model.get("eos_token_id")))
            | frozenset(as_token_ids(generation.get("eos_token_id"))),
            input_names=dict(decoder["inputs"]),
            output_names=dict(decoder["outputs"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'genai_config.json'} does not describe a decoder: {error!r}.") from error
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    return decoder_config
