"""Default models, and copies of them with other parameters and without a second copy of their weights."""

import os
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from builders import config_pbtxt
from builders import recipe as recipes
from builders.embedding import triton_config
from builders.embedding.family import EmbeddingRecipe
from tritonic import default_models

ROOT = Path(__file__).parents[2]


def build_default(name: str) -> Path:
    """Return the folder of a default model, built as `up` builds it unless it is built already."""
    repository = Path(os.environ.get("TRITONIC_REPOSITORY") or ROOT / "model_repository").resolve()
    (default,) = (model for model in default_models.default_models(repository) if model.name == name)
    built = subprocess.run(default.command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return repository / name


def install_copy(model: Path, repository: Path, name: str, without: Collection[str] = (), **parameters: object) -> Path:
    """Install `model` in `repository` as `name` with changed parameters in its config.pbtxt, and return its folder.

    Tensors named `without` are not declared, as if an earlier version had built the model.
    """
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    for file in (model / "1").iterdir():
        _link(file, folder / "1" / file.name)
    change_config(model, folder, name, without, **parameters)
    return folder


def install_split_embedding(model: Path, repository: Path, name: str, max_texts: int) -> Path:
    """Install an embedding model as the target `tensorrt` does, with the network as a model of its own.

    Our ONNX backend runs the network here, where TensorRT runs the plan.
    """
    recipe = recipes.make(family="embedding", name=name, source="/", target="tensorrt", max_rows=max_texts)
    assert isinstance(recipe, EmbeddingRecipe)
    network = triton_config.Network(dimensions=384, vocabulary=30522)
    encoder = config_pbtxt.parse(triton_config.render_encoder(recipe, network))
    encoder.backend, encoder.platform = "onnxruntime", ""
    encoder.instance_group[0].kind = encoder.instance_group[0].KIND_CPU
    (repository / encoder.name / "1").mkdir(parents=True)
    _link(model / "1" / "model.onnx", repository / encoder.name / "1" / "model.onnx")
    (repository / encoder.name / "config.pbtxt").write_text(config_pbtxt.to_text(encoder))
    folder = install_copy(
        model,
        repository,
        name,
        engine="tensorrt",
        encoder=encoder.name,
        vocab_size=network.vocabulary,
        max_batch_texts=max_texts,
    )
    (folder / "1" / "model.onnx").unlink()
    return folder


def change_config(model: Path, folder: Path, name: str, without: Collection[str] = (), **parameters: object) -> None:
    """Write the config.pbtxt of `model` into `folder`, changed as `install_copy` does."""
    config = text_format.Parse((model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    config.name = name
    for tensors in (config.input, config.output):
        for tensor in [tensor for tensor in tensors if tensor.name in without]:
            tensors.remove(tensor)
    for key, value in {"served_name": name, **parameters}.items():
        config.parameters[key].string_value = str(value)
    text = text_format.MessageToString(config, as_utf8=True)
    # Triton wants the zero written; protobuf leaves it out because it is the default.
    (folder / "config.pbtxt").write_text(f"max_batch_size: 0\n{text}")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem
        shutil.copy2(source, target)
