"""The `parameters` of `config.pbtxt` that this backend reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.serving.config_parameters import integer_value, json_value, string_values, thread_count

ENGINES = ("onnxruntime", "tensorrt")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a model, as docs/architecture.md describes them.

    `network_scale` is the factor of the network, and each of `scales` divides it. `tile` is the side of a tile in
    pixels, without the `overlap` on each side of it, and `feather` the pixels on each side of a border over which two
    tiles pass into one another. `max_pixels` and `max_output_pixels` bound a picture and what is
    made of it. `max_rows` tiles run at once. `network` names the Triton model of the engine `tensorrt`.
    """

    network_scale: int
    scales: tuple[int, ...]
    tile: int = 256
    overlap: int = 16
    feather: int = 0
    max_pixels: int = 3840 * 2160
    max_output_pixels: int = 7680 * 4320
    max_rows: int = 1
    max_waiting: int = 64
    threads: int = 0
    network: str | None = None

    @property
    def num_threads(self) -> int:
        """Threads of one run on a CPU: `threads`, or one for each core that this process may use if that is 0."""
        return thread_count(self.threads)


def read_options(parameters: Mapping[str, Mapping[str, Any]]) -> Options:
    """Read `parameters` as Triton passes them: `{"tile": {"string_value": "256"}}`.

    Ignores parameters that others read. Raises `ValueError` with a sentence that names the parameter.
    """
    values = string_values(parameters)
    engine = values.get("engine") or ENGINES[0]
    if engine not in ENGINES:
        raise ValueError(f"The parameter engine is {engine!r}; this backend has {', '.join(ENGINES)}.")
    network_scale = integer_value(values, "network_scale", None, 2)
    scales = json_value(values, "scales", [network_scale])
    if not isinstance(scales, list) or not scales or not all(_divides(scale, network_scale) for scale in scales):
        raise ValueError(f"The parameter scales is {scales!r}; it must be a list of divisors of {network_scale}.")
    network = values.get("network") or None
    if (engine == "tensorrt") != (network is not None):
        raise ValueError(f"The parameter network is {network!r}; the engine tensorrt needs it, and no other.")
    tile, overlap = integer_value(values, "tile", 256, 16), integer_value(values, "overlap", 16, 0)
    feather = integer_value(values, "feather", 0, 0)
    if feather > overlap or 4 * feather > tile:
        raise ValueError(f"The parameter feather is {feather}; it must be at most the overlap, and a fourth of tile.")
    return Options(
        network_scale=network_scale,
        scales=tuple(sorted(set(scales))),
        tile=tile,
        overlap=overlap,
        feather=feather,
        max_pixels=integer_value(values, "max_pixels", 3840 * 2160, 1),
        max_output_pixels=integer_value(values, "max_output_pixels", 7680 * 4320, 4),
        max_rows=integer_value(values, "max_rows", 1, 1),
        max_waiting=integer_value(values, "max_waiting", 64, 0),
        threads=integer_value(values, "threads", 0, 0),
        network=network,
    )


def _divides(scale: Any, network_scale: int) -> bool:
    return type(scale) is int and scale > 1 and network_scale % scale == 0
