"""Attacks by images of a few kilobytes that take seconds or gigabytes to decode."""

import base64
import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

from PIL import Image

from tests.attack.cases.case import REFUSAL_STATUSES, Attack, AttackCase, Target
from tests.attack.raw_http import multipart_body

EDIT, CHAT, IMAGES = "/v1/images/edits", "/v1/chat/completions", "/v1/images/generations"
_TYPE = "multipart/form-data; boundary=attack-7e57"


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


@cache
def progressive_jpeg(count: int = 3000, side: int = 4096) -> bytes:
    """Return a progressive JPEG (ITU-T T.81, annex G) of one colour with `count` scans of a few bytes each.

    The decoder visits the whole image for each scan.
    """
    frame = struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0])
    one_code = bytes([1] + [0] * 15)
    tables = _segment(0xC4, b"\x00" + one_code + b"\x00") + _segment(0xC4, b"\x10" + one_code + b"\xe0")
    blocks = (side // 8) ** 2
    # The first scan has the DC coefficients, one bit each. The only code of its table stands for no difference.
    first = _segment(0xDA, bytes([1, 1, 0x00, 0, 0, 0x00])) + b"\x00" * (blocks // 8)
    # Each later scan has one band of the AC coefficients, as runs of 16,384 empty blocks.
    runs = -(-blocks // 16_384)
    bits = ("0" + "0" * 14) * runs
    data = (
        int(bits.ljust(-(-len(bits) // 8) * 8, "1"), 2)
        .to_bytes(-(-len(bits) // 8), "big")
        .replace(b"\xff", b"\xff\x00")
    )
    scans = [_segment(0xDA, bytes([1, 1, 0x00, 1 + n % 63, 1 + n % 63, 0x00])) + data for n in range(count)]
    return b"".join([b"\xff\xd8", _segment(0xDB, b"\x00" + b"\x01" * 64), _segment(0xC2, frame), tables, first, *scans,
                     b"\xff\xd9"])  # fmt: skip


@cache
def solid_image(image_format: str, size: tuple[int, int] = (7000, 7000), mode: str = "RGB", **options: object) -> bytes:
    """Return an image of one colour."""
    file = io.BytesIO()
    Image.new(mode, size, 7).save(file, image_format, **options)
    return file.getvalue()


@cache
def oversized_png(side: int = 7000) -> bytes:
    """Return a PNG whose data continue for hundreds of megabytes after the last row."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    compressor = zlib.compressobj(9)
    data = b"".join(compressor.compress(bytes(2**20)) for _ in range(300)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@cache
def animated_gif(count: int = 1000) -> bytes:
    """Return a GIF with many frames."""
    file = io.BytesIO()
    first, *rest = [Image.effect_noise((16, 16), 90) for _ in range(count)]
    first.save(file, "GIF", save_all=True, append_images=rest)
    return file.getvalue()


def _url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


_FIELDS: list[tuple[str, str | None, bytes]] = [
    ("model", None, b"shapes"), ("prompt", None, b"x"), ("steps", None, b"1")]  # fmt: skip


def edit_image(data: Callable[[], bytes], times: int = 1, files: int = 1) -> Attack:
    """Edit the image: `files` copies in a form, and `times` forms at once."""

    def attack(target: Target) -> None:
        form = multipart_body([*_FIELDS, *[("image", "a", data())] * files])
        target.run_concurrently(times, lambda _: target.post(EDIT, form, content_type=_TYPE))

    return attack


def chat_with_image(data: Callable[[], bytes], kind: str, count: int = 1, times: int = 1) -> Attack:
    """Chat about `count` copies of the image, in `times` chats at once."""

    def attack(target: Target) -> None:
        part = {"type": "image_url", "image_url": {"url": _url(data(), kind)}}
        body = {"model": "sighted", "messages": [{"role": "user", "content": [part] * count}]}
        target.run_concurrently(times, lambda _: target.json(CHAT, body))

    return attack


def generate_from_image(data: Callable[[], bytes], kind: str) -> Attack:
    """Generate an image from the image in a JSON body."""

    def attack(target: Target) -> None:
        target.json(IMAGES, {"model": "shapes", "prompt": "x", "steps": 1, "image": _url(data(), kind)})

    return attack


def _webp() -> bytes:
    return solid_image("WEBP")


def _lossless_webp() -> bytes:
    return solid_image("WEBP", lossless=True)


def _png() -> bytes:
    return solid_image("PNG")


def _line() -> bytes:
    return solid_image("PNG", (49_000_000, 1))


def _image_case(name: str, data: Callable[[], bytes], attack: Attack, *, costly: bool = False) -> AttackCase:
    return AttackCase(
        f"pictures: {name}",
        attack,
        (200, *REFUSAL_STATUSES),
        honest_requests=("chat", "picture"),
        runs_on_two_workers=costly,
        prepare=data,
    )


CASES = [
    _image_case("a JPEG of 3,000 scans", progressive_jpeg, edit_image(progressive_jpeg), costly=True),
    _image_case("four of them at once", progressive_jpeg, edit_image(progressive_jpeg, 4), costly=True),
    _image_case("such a JPEG in a chat", progressive_jpeg, chat_with_image(progressive_jpeg, "jpeg")),
    _image_case(
        "such a JPEG as the input of a generation", progressive_jpeg, generate_from_image(progressive_jpeg, "jpeg")
    ),
    _image_case("49 million pixels of WebP", _webp, edit_image(_webp)),
    _image_case("sixteen of them in one form", _webp, edit_image(_webp, 1, 16), costly=True),
    _image_case("sixteen of them in one chat", _webp, chat_with_image(_webp, "webp", 16)),
    _image_case(
        "two chats with four of them", _lossless_webp, chat_with_image(_lossless_webp, "webp", 4, 2), costly=True
    ),
    _image_case("49 million pixels of PNG", _png, edit_image(_png)),
    _image_case("a line of 49 million pixels", _line, edit_image(_line)),
    _image_case("a PNG with data after its last row", oversized_png, edit_image(oversized_png)),
    _image_case("a GIF of a thousand frames", animated_gif, edit_image(animated_gif)),
]
