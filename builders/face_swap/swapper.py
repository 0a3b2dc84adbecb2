"""The files of a neural swapper: their shapes are checked, and each network runs once.

The interface is that of InsightFace's inswapper. Its embedding network takes `image` [1, 3, 112, 112] and returns 512
numbers; the swapper takes `target` [1, 3, 128, 128] and `source` [1, 512] and returns [1, 3, 128, 128].
"""

import shutil
from pathlib import Path
from typing import Any

from builders.errors import UnsupportedModel, VerificationFailed
from builders.face_swap.sources import EMAP_FILE, SWAPPER_FILES

FACE, ALIGNED, FEATURES = (1, 3, 128, 128), (1, 3, 112, 112), (1, 512)


def install(source: Path, engine: Path) -> None:
    """Copy the networks and the matrix of the folder `source` to `engine`, and run them.

    Without `emap.npy`, the matrix is the last constant of the swapper, where InsightFace keeps it. Raises
    UnsupportedModel where a file has other shapes, and VerificationFailed where a network does not return numbers.
    """
    import numpy as np

    emap = _read_emap(source)
    if emap is not None:
        if emap.shape != (FEATURES[1], FEATURES[1]):
            raise UnsupportedModel(f"{EMAP_FILE} has the shape {emap.shape}; 512 x 512 is needed.")
        np.save(engine / EMAP_FILE, emap.astype(np.float32))
    for name in SWAPPER_FILES:
        shutil.copyfile(source / name, engine / name)
    noise = np.random.default_rng(0)
    picture = noise.random(ALIGNED, dtype=np.float32)
    embedding = _run(engine / SWAPPER_FILES[0], [picture * 2 - 1], None, FEATURES)
    latent = (embedding if emap is None else embedding @ emap.astype(np.float32)).astype(np.float32)
    latent /= np.linalg.norm(latent)
    _run(engine / SWAPPER_FILES[1], [noise.random(FACE, dtype=np.float32), latent], ("target", "source"), FACE)


def _read_emap(source: Path) -> Any:
    """Return the matrix of the file `emap.npy`, or of the swapper; None if neither has one."""
    import numpy as np

    if (source / EMAP_FILE).is_file():
        try:
            return np.load(source / EMAP_FILE, allow_pickle=False)
        except ValueError as error:
            raise UnsupportedModel(f"{EMAP_FILE} cannot be read: {error}.") from None
    import onnx
    from onnx import numpy_helper

    constants = onnx.load(str(source / SWAPPER_FILES[1])).graph.initializer
    if constants and tuple(constants[-1].dims) == (FEATURES[1], FEATURES[1]):
        return numpy_helper.to_array(constants[-1])
    return None


def _run(path: Path, arrays: list[Any], names: tuple[str, ...] | None, shape: tuple[int, ...]) -> Any:
    """Run a network on arrays for the inputs `names`; None: it has one input. Returns its one output."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own
        raise UnsupportedModel(f"{path.name} cannot be loaded: {str(error)[:300]}") from None
    found = {each.name: tuple(each.shape)[1:] for each in session.get_inputs()}
    names = tuple(found) if names is None else names
    wanted = {name: array.shape[1:] for name, array in zip(names, arrays, strict=False)}
    if found != wanted or len(names) != len(arrays):
        raise UnsupportedModel(f"{path.name} has the inputs {found}; {wanted} are needed, after the batch.")
    outputs = session.run(None, dict(zip(names, arrays, strict=True)))
    if len(outputs) != 1 or outputs[0].shape != shape:
        raise UnsupportedModel(f"{path.name} returns {[each.shape for each in outputs]}; {shape} is needed.")
    if not np.isfinite(outputs[0]).all():
        raise VerificationFailed(f"{path.name} returns values that are no finite numbers.")
    return outputs[0]
