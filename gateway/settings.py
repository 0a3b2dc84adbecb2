"""Settings of the gateway, read from the environment: `TRITONIC_PORT=1088` sets `port`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    PlainValidator,
    SecretStr,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from gateway import rate_rules, setting_values


class Platform(BaseModel):
    """A view of the models under a name of its own, `/NAME/v1/…`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: list[SecretStr] | None = None
    """Keys of which a request must bear one; `[]`: everybody may call; default: the gateway's own `api_keys`."""
    models: list[str] | None = None
    """The models that it has; default: all."""


PlatformName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Settings(BaseSettings):
    """Every setting has a default that suits one machine; see `docs/operations.md`."""

    model_config = SettingsConfigDict(
        env_prefix="TRITONIC_",
        extra="ignore",
        hide_input_in_errors=True,  # what is wrong may be a secret with a space too many
    )

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 1088
    """Port to listen on."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that answer at this port (`tritonic.workers`)."""
    hang_timeout: Annotated[float, Field(ge=0), AfterValidator(lambda given: given and max(given, 1.0))] = 10.0
    """Seconds, one at least, after which a process whose event loop does not run is ended, to be replaced; 0: never."""
    triton_urls: Annotated[list[str], NoDecode] = ["127.0.0.1:8001"]
    """gRPC endpoints of the Triton servers, `host:port` or `unix:/path`, separated by commas."""
    triton_secret: Annotated[SecretStr | None, AfterValidator(setting_values.check_secret)] = None
    """What opens the protocols that the servers restrict: `--grpc-restricted-protocol=…:tritonic=SECRET`."""
    triton_transport: Literal["http2", "grpcio"] = "http2"
    """The gRPC client of these servers: the gateway's own, which is cheaper for each token, or grpcio, which alone
    speaks TLS."""
    triton_tls_ca: Annotated[FilePath | None, AfterValidator(setting_values.check_tls_ca)] = None
    """PEM file of the certificates that the servers' must be signed by. The settings of TLS imply grpcio."""
    triton_tls_cert: FilePath | None = None
    """PEM file of the client certificate, for servers that ask for one; needs `triton_tls_key`."""
    triton_tls_key: Annotated[FilePath | None, Field(validate_default=True)] = None
    """PEM file of its private key, without a password."""
    models_file: Path | None = None
    """What is said of models that do not describe themselves, TOML (`gateway/models/models_file.py`)."""
    model_aliases: Annotated[dict[str, str], NoDecode] = {}
    """Other names of models, `NAME=MODEL` separated by commas: `dall-e-3=shapes`. /v1/models does not list them."""
    discovery_interval: Annotated[float, Field(gt=0)] = 2.0
    """Seconds between two looks at which models the servers hold."""
    request_timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds without a response from a model after which a request has failed."""
    api_keys: Annotated[list[SecretStr], NoDecode] = []
    """Keys of which a request must bear one, separated by commas. None: everybody may call."""
    model_requests: Annotated[int, Field(gt=0)] = 2048
    """Requests that one model may have open; what comes beyond is refused, fairly (`gateway.models.admission`). Each
    worker has an equal part of them."""
    rate_limits: Annotated[rate_rules.Rates, NoDecode, PlainValidator(setting_values.parse_rates)] = {}
    """How often callers may ask: `60/minute, 100000 tokens/minute, CALLER=600/minute` (`gateway.http.rates`);
    default: as often as they like."""
    rate_limits_store: Annotated[SecretStr | None, Field(validate_default=True)] = None
    """Where is counted how often they did: `redis://…`, which gateways may share; default: each counts for itself.
    Several workers need one."""
    platforms: Annotated[dict[PlatformName, Platform], NoDecode] = {"tritonic": Platform()}
    """Views of the models: JSON, or the name of a TOML file, with a table `{keys, models}` for each name."""
    cors_origins: Annotated[list[str], NoDecode] = []
    """Origins whose pages may call, separated by commas; `*` for all. None: no CORS headers."""
    allowed_hosts: Annotated[list[str], NoDecode] = []
    """Hosts that requests may name besides loopback and the address that they came to, separated by commas: names or
    addresses without ports, `*.NAME`, or `*` for all (`gateway.http.trusted_hosts`). Default: none; with `api_keys`
    all."""
    max_connections: Annotated[int, Field(gt=0)] = 4096
    """Connections that each process of the gateway may have open; fewer where its limit of descriptors is lower."""
    head_timeout: Annotated[float, Field(gt=0)] = 15.0
    """Seconds within which the request line and the headers must arrive, from the connection's opening or their first
    byte."""
    idle_timeout: Annotated[float, Field(gt=0)] = 5.0
    """Seconds for which a connection is kept after an answer; proxies that keep theirs longer want a larger number."""
    max_body_bytes: Annotated[int, Field(gt=0)] = 32 * 1024 * 1024
    """Largest request body."""
    requests_held_bytes: Annotated[int, Field(gt=0)] = 512 * 1024 * 1024
    """Bytes that all requests hold which are not answered yet, shared fairly among callers; room for two at least."""
    prompt_max_characters: Annotated[int, Field(gt=0)] = 8_000_000
    """Longest text of one request: that of all its messages with what documents say, of all its prompts, or inputs."""
    completions_max_tokens: Annotated[int, Field(ge=0)] = 16
    """Tokens of a completion (not of a chat) whose request does not say; 0: what the context leaves."""
    body_timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds within which a request body must arrive."""
    send_timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds without reading anything of a stream that waits for it after which a client has hung up."""
    project: str = "Tritonic"
    """The `project` of `/v1/models`."""
    public_url: str | None = None
    """How clients reach this gateway, for the URLs that answers carry; default: the address they called."""
    node_url: Annotated[str | None, Field(pattern=r"^https?://[^/?#\s]+/?$")] = None
    """The API of a DecentralGPT node on this machine, `http://127.0.0.1:6000` for example; it is told of the models."""
    node_api_url: Annotated[str | None, Field(validate_default=True)] = None
    """Where that node reaches this gateway: localhost or an address of this machine; default: `host` and `port`."""
    node_interval: Annotated[float, Field(gt=0)] = 180.0
    """Seconds after which all models are registered again."""
    cid: Annotated[str | None, Field(min_length=1)] = None
    """What tells this gateway's models from others' of the same name at that node; default: the host's name, which in
    a container is the container's id."""
    media_timeout: Annotated[float, Field(gt=0)] = 10.0
    """Seconds that fetching a caller's URL may take, redirects and all."""
    media_max_bytes: Annotated[int, Field(gt=0)] = 20 * 1024 * 1024
    """Largest picture, document or sound that a request refers to or holds, unpacked from base64 or gzip."""
    media_request_max_bytes: Annotated[int, Field(gt=0)] = 64 * 1024 * 1024
    """The same, of all that one request refers to and holds."""
    media_held_bytes: Annotated[int, Field(gt=0)] = 512 * 1024 * 1024
    """The same, of all requests whose references are being fetched and read, shared fairly among callers."""
    media_request_timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that fetching and reading all that one request refers to may take."""
    media_concurrency: Annotated[int, Field(gt=0)] = 8
    """URLs that are fetched at a time, shared fairly among callers."""
    media_allow_private: bool = False
    """Whether callers' URLs may lead to loopback and private addresses. They reach what the gateway can reach."""
    media_allowed_hosts: Annotated[list[str], NoDecode] = []
    """Hosts that may be private all the same, separated by commas: names or addresses, as URLs have them."""
    picture_max_pixels: Annotated[int, Field(gt=0)] = 50_000_000
    """Width × height of the largest picture."""  # noqa: RUF001
    picture_request_max_pixels: Annotated[int, Field(gt=0)] = 200_000_000
    """The same, of all pictures of one request together."""
    picture_workers: Annotated[int, Field(gt=0)] = 4
    """Pictures that are looked at at a time, each in a process of its own; shared fairly among callers."""
    picture_timeout: Annotated[float, Field(gt=0)] = 5.0
    """Seconds of a core that looking at a picture may take; by the clock twice as many."""
    document_workers: Annotated[int, Field(gt=0)] = 4
    """Documents and sounds that are read at a time, each in a process of its own; shared fairly among callers."""
    document_timeout: Annotated[float, Field(gt=0)] = 20.0
    """Seconds of a core that reading a document or a sound may take; by the clock twice as many."""
    document_memory_bytes: Annotated[int, Field(ge=256 * 1024 * 1024)] = 1024 * 1024 * 1024
    """Address space of a process that looks at a picture or reads a document or a sound, besides its libraries."""
    document_max_characters: Annotated[int, Field(gt=0)] = 1_000_000
    """Longest text of a document."""
    sound_max_seconds: Annotated[float, Field(gt=0)] = 1800.0
    """Longest sound."""
    state: Path = Path(".tritonic")
    """Folder for what has to outlive the gateway: files, tasks, and the key that signs addresses."""
    files: str | None = None
    """Where files are kept: a folder, or a bucket as `s3://…`, `gs://…`, `az://…`; default: `files` in the state."""
    files_style: Literal["url", "path"] = "url"
    """How answers tell of files: by addresses here, or by paths in this machine's file system."""
    files_key: SecretStr | None = None
    """What signs the addresses of files; default: made once and kept in the state. Gateways of one address share it."""
    files_url_seconds: Annotated[float, Field(gt=0)] = 86400.0
    """Seconds after which the address of a file expires."""
    files_retention: Annotated[float, Field(gt=0)] = 604800.0
    """Seconds after which a file is removed."""
    files_max_bytes: Annotated[int, Field(gt=0)] = 10 * 1024 * 1024 * 1024
    """What all files may take; the oldest are removed first."""
    tasks: SecretStr | None = None
    """Database of tasks, `sqlite:///PATH` or `postgresql://…`; default: SQLite in the state. Gateways may share one."""
    tasks_concurrency: Annotated[int, Field(gt=0)] = 4
    """Tasks of one model that are worked on at a time, by all gateways that share the database."""
    tasks_per_key: Annotated[int, Field(gt=0)] = 1000
    """Tasks of one key, or of all callers without any, that may wait or be worked on; more are refused."""
    tasks_patience: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that a task waits for a model that is away or full before it has failed."""
    tasks_retention: Annotated[float, Field(gt=0)] = 604800.0
    """Seconds after which a task that has ended is forgotten."""
    log_format: Literal["json", "console"] = "json"
    """How log lines are written."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least serious lines to write."""

    _split_lists = field_validator(
        "triton_urls", "api_keys", "cors_origins", "allowed_hosts", "media_allowed_hosts", mode="before"
    )(setting_values.split_list)
    _check_allowed_hosts = field_validator("allowed_hosts")(setting_values.check_hosts)
    _check_triton_urls = field_validator("triton_urls")(setting_values.check_servers)
    _check_triton_tls_key = field_validator("triton_tls_key")(setting_values.check_tls_key)
    _split_pairs = field_validator("model_aliases", mode="before")(setting_values.split_pairs)
    _read_platforms = field_validator("platforms", mode="before")(setting_values.parse_tables)
    _check_model_requests = field_validator("model_requests")(setting_values.check_share_of_workers)
    _check_rate_limits_store = field_validator("rate_limits_store")(setting_values.check_redis)
    _check_node_api_url = field_validator("node_api_url")(setting_values.check_node_api_url)
