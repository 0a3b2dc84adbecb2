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
        ("unix:/srv/tritonic/socket/grpc:1,a:1", ["unix:/srv/tritonic/socket/grpc:1", "a:1"]),
    ],
)
def test_addresses(written: str, urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_TRITON_URLS", written)
    assert Settings().triton_urls == urls


@pytest.mark.parametrize(
    "written",
    [
        *("", " , ", "host", ":8001", "a:99999", "a:0", "http://a:1", "a b:1", "::1:8001", "a:\uff11", "a:1,b"),
        *("unix:", "unix:a", "unix:/", "unix:/a b", "unix:/" + "a" * 107),
    ],
)
def test_invalid_addresses_are_refused(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_TRITON_URLS", written)
    with pytest.raises(ValidationError, match=r"not HOST:PORT|name at least one server"):
        Settings()


def test_the_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_TRITON_SECRET", "s3cr3t=:,~")
    secret = Settings().triton_secret
    assert secret is not None and secret.get_secret_value() == "s3cr3t=:,~"
    assert "s3cr3t" not in repr(Settings()) + str(Settings()) + Settings().model_dump_json()
    monkeypatch.setenv("TRITONIC_TRITON_SECRET", "")  # compose files name every variable
    assert Settings().triton_secret is None


@pytest.mark.parametrize("written", ["a b", "a\n", "é", "a" * 513, "\x01"])
def test_invalid_secrets_are_refused(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_TRITON_SECRET", written)
    with pytest.raises(ValidationError, match="printable ASCII characters") as refused:
        Settings()
    assert "input_value" not in str(refused.value)
