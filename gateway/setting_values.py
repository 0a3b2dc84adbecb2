"""Parsers and validators of the settings (`gateway.settings`) as written in the environment.

Each raises `ValueError` with a message that describes the expected form.
"""

import base64
import json
import re
import ssl
import tomllib
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationInfo

from gateway import rate_rules

_SOCKET = re.compile(r"unix:/[A-Za-z0-9._:/@+=~-]{1,106}")  # paths of up to 107 characters, the limit of sockets
_SERVER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_][A-Za-z0-9._-]*")


def split_list(value: object) -> object:
    """Split a text at its commas, dropping empty parts. Return other values unchanged."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def split_pairs(value: object) -> object:
    """Parse `a=b,c=d` to a dictionary. Return other values unchanged."""
    parts = split_list(value)
    if not isinstance(parts, list):
        return value
    if not all(name.strip() and other.strip() for name, _, other in (part.partition("=") for part in parts)):
        raise ValueError("write NAME=MODEL, separated by commas")
    return {name.strip(): other.strip() for name, _, other in (part.partition("=") for part in parts)}


def check_servers(urls: list[str]) -> list[str]:
    """Check that each URL is HOST:PORT or unix:/PATH. Return them without duplicates."""
    if not urls:
        raise ValueError("name at least one server")
    for url in urls:
        if _SOCKET.fullmatch(url):
            continue
        found = _SERVER.fullmatch(url)
        if not found or not 0 < int(found[1]) < 65536:
            raise ValueError(f"{url!r} is not HOST:PORT or unix:/PATH; write an IPv6 address in brackets")
    return list(dict.fromkeys(urls))


def check_secret(secret: SecretStr | None) -> SecretStr | None:
    """Check a secret that is sent as a header. An empty one means None."""
    if secret is None or not secret.get_secret_value():  # docker-compose sets unset variables to an empty string
        return None
    if not re.fullmatch(r"[!-~]{1,512}", secret.get_secret_value()):
        raise ValueError("must have 1 to 512 printable ASCII characters and no spaces")
    return secret


def check_webhook_secrets(secrets: list[SecretStr]) -> list[SecretStr]:
    """Check that each secret has the form of Standard Webhooks."""
    for secret in secrets:
        prefix, _, encoded = secret.get_secret_value().partition("_")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        if prefix != "whsec" or not 24 <= len(key) <= 64:
            raise ValueError("write whsec_ and the base64 of 24 to 64 random bytes")
    return secrets


def check_tls_ca(file: Path | None) -> Path | None:
    """Check that a PEM file holds certificates."""
    if file is not None:
        try:
            ssl.create_default_context(cafile=str(file))
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"the file has no certificates in PEM format: {error}") from None
    return file


def check_tls_key(key: Path | None, info: ValidationInfo) -> Path | None:
    """Check that a client certificate and a private key belong together."""
    certificate = info.data.get("triton_tls_cert")
    if (key is None) != (certificate is None):
        raise ValueError("set both triton_tls_cert and triton_tls_key, or neither")
    if key and certificate:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"the file is not the key of the client certificate in PEM format: {error}") from None
    return key


def parse_rates(value: object) -> rate_rules.Rates:
    """Parse rate limits (`gateway.rate_rules`)."""
    return rate_rules.parse(parts) if isinstance(parts := split_list(value), list) else {}


def check_redis(url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """Check the URL of the Redis for rate limits, which more than one worker requires."""
    if url is None or not url.get_secret_value():  # docker-compose sets unset variables to an empty string
        if info.data.get("rate_limits") and info.data.get("workers", 1) > 1:
            raise ValueError("several workers with rate limits require a Redis: set its URL here, or run one worker")
        return None
    parts = urlsplit(url.get_secret_value())
    if parts.scheme not in ("redis", "rediss", "unix") or parts.port == 0:
        raise ValueError("write redis://HOST:PORT/DATABASE, or rediss:// or unix://")
    return url


def check_share_of_workers(requests: int, info: ValidationInfo) -> int:
    """Check that each worker gets at least one of the requests."""
    if requests < info.data.get("workers", 1):
        raise ValueError("must be at least the number of workers, which share it equally")
    return requests


def check_node_api_url(url: str | None, info: ValidationInfo) -> str | None:
    """Refuse URLs that a node refuses: it accepts `localhost` and addresses, and no other host names."""
    if url is None:
        if info.data.get("node_url") and info.data.get("port") == 0:
            raise ValueError("required if the port is 0, as the node needs the URL of the gateway")
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("write http://ADDRESS:PORT")
    if parts.hostname != "localhost":
        try:
            ip_address(parts.hostname)
        except ValueError:
            raise ValueError("the host must be localhost or an IP address: a node accepts no other names") from None
    return url


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def check_hosts(names: list[str]) -> list[str]:
    """Check host names. Return them in lower case, without a dot at the end."""
    for name in names:
        if name != "*" and not (_HOST.fullmatch(name) or _is_address(name)):
            raise ValueError(
                f"{name[:100]!r} is not a host: write names or addresses without ports, *.NAME, or * for all"
            )
    return [name.lower().rstrip(".") for name in names]


def parse_tables(value: object) -> object:
    """Parse JSON, or else read the TOML file at this path. Return other values unchanged."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"not valid JSON: {error}") from None
    try:
        return tomllib.loads(Path(value).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"neither JSON nor the path of a readable TOML file: {error}") from None
