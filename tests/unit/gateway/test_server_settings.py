"""Which addresses of Triton servers are understood."""

import pytest
from pydantic import ValidationError

from gateway.settings import Settings


@pytest.mark.parametrize(
    ("written", "urls"),
    [
        ("127.0.0.1:8001", ["127.0.0.1:8001"]),
        ("[::1]:8001, triton_0.models.svc:8001", ["[::1]:8001", "triton_0.models.svc:8001"]),
        ("a:1,b:2,a:1", ["a:1", "b:2"]),
    ],
)
def test_addresses(written: str, urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_TRITON_URLS", written)
    assert Settings().triton_urls == urls


@pytest.mark.parametrize(
    "written", ["", " , ", "host", ":8001", "a:99999", "a:0", "http://a:1", "a b:1", "::1:8001", "a:\uff11", "a:1,b"]
)
def test_what_is_no_address(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_TRITON_URLS", written)
    with pytest.raises(ValidationError, match=r"not HOST:PORT|name one server"):
        Settings()
