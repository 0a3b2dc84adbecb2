"""Sources of models that swap faces: packages with the networks that find faces, and a folder with a neural swapper."""

import hashlib
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders import packaged_files
from builders.checkpoint import Checkpoint, sha256
from builders.errors import RecipeError, SourceUnavailable
from builders.packaged_files import NpmArchive, PackagedFile, WheelPart
from builders.progress import Progress

PACKAGED = "packaged:face-swap"
"""The source without a neural swapper: faces are warped."""

_FACENET = "facenet-pytorch==2.6.0"
# MTCNN of facenet-pytorch, MIT. The package itself depends on torchvision, and is not installed.
CASCADE = tuple(
    PackagedFile(f"{name}.pt", (WheelPart(_FACENET, f"facenet_pytorch/data/{name}.pt"),), digest, size)
    for name, digest, size in (
        ("pnet", "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f", 28_570),
        ("rnet", "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86", 403_147),
        ("onet", "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d", 1_559_269),
    )
)
# face-api, MIT.
FACE_API = PackagedFile(
    "face-api-1.7.15.tgz",
    (NpmArchive("@vladmandic/face-api", "1.7.15"),),
    "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
    12_677_476,
)
_LANDMARKS = {
    "package/model/face_landmark_68_model.bin": "landmarks.bin",
    "package/model/face_landmark_68_model-weights_manifest.json": "landmarks.json",
}
"""Members of face-api's archive, and the names that they get."""

SWAPPER_FILES = ("embedding.onnx", "swapper.onnx")
EMAP_FILE = "emap.npy"


@dataclass(frozen=True, slots=True)
class FaceSwapSource:
    """The packages, and the folder of a neural swapper or None."""

    swapper: Path | None = None

    def digest(self) -> str:
        """Return the pinned hashes, and those of the swapper's files."""
        hashes = [file.sha256 for file in (*CASCADE, FACE_API)]
        hashes += [sha256(path) for path in self.swapper_files()]
        return f"sha256:{hashlib.sha256(' '.join(hashes).encode()).hexdigest()}"

    def swapper_files(self) -> list[Path]:
        """Return the files of the neural swapper: its networks and, where there is one, its matrix."""
        if self.swapper is None:
            return []
        files = [self.swapper / name for name in SWAPPER_FILES]
        emap = self.swapper / EMAP_FILE
        return [*files, emap] if emap.is_file() else files

    def config(self) -> dict[str, Any]:
        """Return nothing: the files tell what the model is."""
        return {}

    def num_parameters(self) -> int | None:
        """Return None: ONNX files do not tell without being read."""
        return None

    def scratch_bytes(self) -> int:
        """Return the size of the weights that are unpacked."""
        return 3_000_000

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Return a folder in `scratch` with `pnet.pt`, `rnet.pt`, `onet.pt`, `landmarks.bin` and `landmarks.json`.

        What the cache lacks is downloaded. Raises SourceUnavailable, MissingDependency.
        """
        *cascade, archive = packaged_files.fetch([*CASCADE, FACE_API], progress)
        folder = scratch / "checkpoint"
        folder.mkdir(parents=True)
        for path in cascade:
            shutil.copyfile(path, folder / path.name)
        with tarfile.open(archive) as files:
            for member, name in _LANDMARKS.items():
                content = files.extractfile(member)
                assert content is not None
                (folder / name).write_bytes(content.read())
        return Checkpoint(folder)


def resolve(source: str) -> FaceSwapSource:
    """Return the source that `packaged:face-swap` or a folder names. Raises RecipeError, SourceUnavailable."""
    if source == PACKAGED:
        return FaceSwapSource()
    if source.startswith("packaged:"):
        raise RecipeError(f"There is no packaged model {source[9:]!r} that swaps faces. Known: face-swap.")
    folder = Path(source).expanduser()
    missing = [name for name in SWAPPER_FILES if not (folder / name).is_file()]
    if missing:
        raise SourceUnavailable(
            f"{source} holds no neural swapper: {' and '.join(missing)} must be there. {PACKAGED} needs none."
        )
    return FaceSwapSource(folder.resolve())
