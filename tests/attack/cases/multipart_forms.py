"""Attacks by forms whose parts, names, charsets or boundaries cost more than their size."""

import os
from collections.abc import Callable

from tests.attack.cases.case import REFUSAL_STATUSES, Attack, AttackCase, Target
from tests.attack.raw_http import CONNECTION_CLOSED, multipart_body

EDIT = "/v1/images/edits"
BOUNDARY = "attack-7e57"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
SIZE = 3 * 2**20
_FIELDS: list[tuple[str, str | None, bytes]] = [("model", None, b"shapes"), ("prompt", None, b"a red circle")]


def post_form(body: Callable[[], bytes], content_type: str = TYPE, times: int = 1) -> Attack:
    """Send a form `times` times at once."""

    def attack(target: Target) -> None:
        form = body()
        target.run_concurrently(times, lambda _: target.post(EDIT, form, content_type=content_type))

    return attack


_CODECS = (
    *("punycode", "idna", "utf-7", "unicode_escape", "raw_unicode_escape", "utf-16", "cp037", "zlib_codec", "rot13"),
    *("bz2_codec", "hex", "undefined", "mbcs", "utf_8_sig", "hz", "iso2022_jp_ext", "x" * 5000),
)


def codecs(target: Target) -> None:
    """Name every codec of Python, with text that is quadratic for some. The gateway must use UTF-8 only."""
    for name in _CODECS:
        text = ("prompt-", None, b"x-" + b"a" * 30_000)
        target.post(EDIT, multipart_body([text]), content_type=f"{TYPE}; charset={name}")
        part_headers = f"Content-Type: text/plain; charset={name}\r\n"
        target.post(EDIT, multipart_body([text], part_headers=part_headers), content_type=TYPE)


def _punycode() -> bytes:
    # Decoding punycode is quadratic: 300 KB take two seconds. The field name ends in "-", so that it is valid punycode
    # as well, and a decoder reaches the text.
    return multipart_body([("prompt-", None, b"x-" + b"a" * 300_000)])


def _many(part: tuple[str, str | None, bytes], count: int = 50_000) -> Callable[[], bytes]:
    return lambda: multipart_body([*_FIELDS, *[part] * count])


def _headed(lines: Callable[[], str]) -> Callable[[], bytes]:
    return lambda: multipart_body([*_FIELDS, ("image", "a.png", b"x")], part_headers=lines())


_MULTIPART_FORMS: dict[str, Callable[[], bytes]] = {
    "fields without end": _many(("a", None, b"")),
    "files without end": _many(("image", "a.png", b"")),
    "a field of megabytes": lambda: multipart_body([*_FIELDS, ("n", None, b"9" * SIZE)]),
    "a name of megabytes": lambda: multipart_body([*_FIELDS, ("a" * SIZE, None, b"")]),
    "a file's name of megabytes": lambda: multipart_body([*_FIELDS, ("image", "a" * SIZE, b"x")]),
    "headers of a part without end": _headed(lambda: "X: a\r\n" * 400_000),
    "a header of a part of megabytes": _headed(lambda: f"X: {'a' * SIZE}\r\n"),
    "beginnings of boundaries": lambda: multipart_body(
        [*_FIELDS, ("image", "a.png", f"\r\n--{BOUNDARY[:-1]}".encode() * 200_000)]
    ),
    "carriage returns": lambda: multipart_body([*_FIELDS, ("image", "a.png", b"\r" * SIZE)]),
    "data before a form": lambda: b"\r\n-" * (SIZE // 3) + multipart_body(_FIELDS),
    "data after a form": lambda: multipart_body(_FIELDS) + b"a" * SIZE,
    "quotes and backslashes in a name": lambda: multipart_body([*_FIELDS, ("\\" * SIZE, None, b"")]),
    "parameters of a name": lambda: multipart_body([('a"' + "; x=y" * 500_000 + '; y="', None, b"")]),
    "a form that does not end": lambda: multipart_body([*_FIELDS, ("image", "a.png", os.urandom(SIZE))])[:-40],
}

_ALL = (200, *REFUSAL_STATUSES, CONNECTION_CLOSED)
CASES = [
    AttackCase(
        "forms: a codec that is quadratic",
        post_form(_punycode, f"{TYPE}; charset=punycode"),
        REFUSAL_STATUSES,
        honest_requests=("chat", "picture"),
        runs_on_two_workers=True,
    ),
    AttackCase("forms: codecs of every name", codecs, _ALL),
    *(
        AttackCase(f"forms: {name}", post_form(body), _ALL, runs_on_two_workers=name == "fields without end")
        for name, body in _MULTIPART_FORMS.items()
    ),
    AttackCase(
        "forms: a boundary of 60 KB",
        post_form(lambda: b"--" + b"a" * SIZE, f"multipart/form-data; boundary={'a' * 60_000}"),
        _ALL,
    ),
    AttackCase(
        "forms: a type of many parameters",
        post_form(lambda: multipart_body(_FIELDS), f"{TYPE}{'; a=b' * 10_000}"),
        _ALL,
    ),
]
