"""The settings of the gateway. Each is read from the environment: `TRITONIC_PORT=1088` sets `port`."""

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
    """A view of the models with API keys of its own, under the path `/NAME/v1/…`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: list[SecretStr] | None = None
    """API keys, one of which a request must have. `[]`: no key is required. Default: the setting `api_keys`."""
    models: list[str] | None = None
    """Names of the models in the view. Default: all models."""


PlatformName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Settings(BaseSettings):
    """All settings. The defaults suit one machine; `docs/operations.md` explains each."""

    model_config = SettingsConfigDict(
        env_prefix="TRITONIC_",
        extra="ignore",
        hide_input_in_errors=True,  # the invalid value may be a secret, such as one with a space too many
    )

    host: str = "127.0.0.1"
    """IP address or host name to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 1088
    """TCP port to listen on."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Number of worker processes that share this port (`tritonic.workers`)."""
    hang_timeout: Annotated[float, Field(ge=0), AfterValidator(lambda given: given and max(given, 1.0))] = 10.0
    """Seconds (at least 1) after which a process whose event loop is blocked is ended, to be replaced. 0: never."""
    triton_urls: Annotated[list[str], NoDecode] = ["127.0.0.1:8001"]
    """gRPC endpoints of the Triton servers: `host:port` or `unix:/path`, separated by commas."""
    triton_secret: Annotated[SecretStr | None, AfterValidator(setting_values.check_secret)] = None
    """Secret for protocols that the servers restrict with `--grpc-restricted-protocol=…:tritonic=SECRET`."""
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
    """TOML file with the parameters of models that do not describe themselves (`gateway/models/models_file.py`)."""
    model_aliases: Annotated[dict[str, str], NoDecode] = {}
    """Aliases of models: `NAME=MODEL` separated by commas, as in `dall-e-3=shapes`. /v1/models does not list them."""
    discovery_interval: Annotated[float, Field(gt=0)] = 2.0
    """Interval of model discovery, in seconds: the gateway asks every server for its models."""
    request_timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds without a response from the model after which a request fails."""
    api_keys: Annotated[list[SecretStr], NoDecode] = []
    """API keys, separated by commas; a request must have one of them. Empty: no key is required."""
    model_requests: Annotated[int, Field(gt=0)] = 2048
    """Most open requests of one model; more are refused, fairly among callers (`gateway.models.admission`). The workers
    share this number equally."""
    rate_limits: Annotated[rate_rules.Rates, NoDecode, PlainValidator(setting_values.parse_rates)] = {}
    """Rate limits of callers: `60/minute, 100000 tokens/minute, CALLER=600/minute` (`gateway.http.rates`). Default: no
    limits."""
    rate_limits_store: Annotated[SecretStr | None, Field(validate_default=True)] = None
    """Redis that counts requests and tokens for `rate_limits`: `redis://…`. Gateways may share it. Default: each
    gateway counts by itself. More than one worker with rate limits requires it."""
    platforms: Annotated[dict[PlatformName, Platform], NoDecode] = {"tritonic": Platform()}
    """Views of the models: JSON, or the path of a TOML file, with a table `{keys, models}` for each name."""
    cors_origins: Annotated[list[str], NoDecode] = []
    """Origins whose web pages may call (CORS), separated by commas; `*` for all. Empty: no CORS headers."""
    allowed_hosts: Annotated[list[str], NoDecode] = []
    """Values of the `Host` header that are accepted besides loopback and the address of the connection, separated by
    commas: names or addresses without ports, `*.NAME`, or `*` for all (`gateway.http.trusted_hosts`). Default: none;
    with `api_keys` all."""
    max_connections: Annotated[int, Field(gt=0)] = 4096
    """Most open connections of each process; fewer where its limit of file descriptors is lower."""
    head_timeout: Annotated[float, Field(gt=0)] = 15.0
    """Timeout of the request line and headers, in seconds, from the opening of the connection or their first byte."""
    idle_timeout: Annotated[float, Field(gt=0)] = 5.0
    """Keep-alive timeout of an idle connection, in seconds. Set it higher than the one of a proxy in front."""
    max_body_bytes: Annotated[int, Field(gt=0)] = 32 * 1024 * 1024
    """Largest request body, in bytes; after decompression where it is in gzip."""
    requests_held_bytes: Annotated[int, Field(gt=0)] = 512 * 1024 * 1024
    """Bytes that all open requests may hold, shared fairly among callers; at least two of the largest requests."""
    prompt_max_characters: Annotated[int, Field(gt=0)] = 8_000_000
    """Most characters of one request: of all messages with their documents, of all prompts, or of all inputs."""
    completions_max_tokens: Annotated[int, Field(ge=0)] = 16
    """Default of `max_tokens` for completions (not for chats). 0: what the context leaves."""
    body_timeout: Annotated[float, Field(gt=0)] = 120.0
    """Timeout of the whole request body, in seconds."""
    send_timeout: Annotated[float, Field(gt=0)] = 120.0
    """Idle-read timeout of a stream, in seconds. A client that reads nothing for this long is disconnected."""
    project: str = "Tritonic"
    """Value of the field `project` of `/v1/models`."""
    public_url: str | None = None
    """Base URL of this gateway for clients, used in URLs of responses. Default: the address of the request."""
    node_url: Annotated[str | None, Field(pattern=r"^https?://[^/?#\s]+/?$")] = None
    """API of a DecentralGPT node on this machine, such as `http://127.0.0.1:6000`; models are registered there."""
    node_api_url: Annotated[str | None, Field(validate_default=True)] = None
    """URL at which that node calls this gateway: localhost or an address here. Default: `host` and `port`."""
    node_interval: Annotated[float, Field(gt=0)] = 180.0
    """Interval at which all models are registered with the node again, in seconds."""
    cid: Annotated[str | None, Field(min_length=1)] = None
    """Id of this gateway at the node, which distinguishes its models from those of other gateways with the same names.
    Default: the host name, which in a container is the id of the container."""
    media_timeout: Annotated[float, Field(gt=0)] = 10.0
    """Timeout for fetching one URL of a request, redirects included, in seconds."""
    media_max_bytes: Annotated[int, Field(gt=0)] = 20 * 1024 * 1024
    """Largest image, document or audio file of a request, in bytes after base64 or gzip are decoded."""
    media_request_max_bytes: Annotated[int, Field(gt=0)] = 64 * 1024 * 1024
    """The same limit for all images, documents and audio files of one request together."""
    media_held_bytes: Annotated[int, Field(gt=0)] = 512 * 1024 * 1024
    """The same limit for all requests whose media are being fetched and decoded, shared fairly among callers."""
    media_request_timeout: Annotated[float, Field(gt=0)] = 60.0
    """Timeout for fetching and decoding all media of one request, in seconds."""
    media_concurrency: Annotated[int, Field(gt=0)] = 8
    """Most URLs that are fetched at a time, shared fairly among callers."""
    media_allow_private: bool = False
    """Permit URLs to loopback and private addresses. Callers can then reach every host that the gateway can reach."""
    media_allowed_hosts: Annotated[list[str], NoDecode] = []
    """Hosts that may have private addresses nevertheless, separated by commas: names or addresses, as in URLs."""
    picture_max_pixels: Annotated[int, Field(gt=0)] = 50_000_000
    """Most pixels of an image: width × height."""  # noqa: RUF001
    picture_request_max_pixels: Annotated[int, Field(gt=0)] = 200_000_000
    """The same limit for all images of one request together."""
    picture_workers: Annotated[int, Field(gt=0)] = 4
    """Most images that are decoded at a time, each in a process of its own; shared fairly among callers."""
    picture_timeout: Annotated[float, Field(gt=0)] = 5.0
    """CPU seconds for decoding one image. The limit of wall-clock time is twice as long."""
    document_workers: Annotated[int, Field(gt=0)] = 4
    """Most documents and audio files decoded at a time, each in its own process; shared fairly among callers."""
    document_timeout: Annotated[float, Field(gt=0)] = 20.0
    """CPU seconds for decoding one document or audio file. The limit of wall-clock time is twice as long."""
    document_memory_bytes: Annotated[int, Field(ge=256 * 1024 * 1024)] = 1024 * 1024 * 1024
    """Memory (address space) of a process that decodes a file, in bytes, in addition to its libraries."""
    document_max_characters: Annotated[int, Field(gt=0)] = 1_000_000
    """Most characters of the text of a document."""
    sound_max_seconds: Annotated[float, Field(gt=0)] = 1800.0
    """Longest audio file of a chat, in seconds."""
    speech_max_characters: Annotated[int, Field(gt=0)] = 4096
    """Most characters of a text to speak, OpenAI's own limit. The model may have a lower one."""
    speech_encoders: Annotated[int, Field(gt=0)] = 32
    """Most answers with speech that are encoded at a time, each in a process of its own; shared fairly among callers.
    WAV, and PCM of 24,000 samples a second, need none."""
    recording_max_seconds: Annotated[float, Field(gt=0)] = 14400.0
    """Longest recording of a transcription, in seconds."""
    recording_max_bytes: Annotated[int, Field(gt=0)] = 1024 * 1024 * 1024
    """Largest file of a recording, in bytes. What exceeds a megabyte is on disk, in `uploads` of `state`."""
    recordings_held_bytes: Annotated[int, Field(gt=0)] = 8 * 1024 * 1024 * 1024
    """The same limit for all open recordings and videos together, shared fairly among callers."""
    recording_workers: Annotated[int, Field(gt=0)] = 32
    """Most recordings that are decoded at a time, each in a process of its own; shared fairly among callers."""
    recording_timeout: Annotated[float, Field(gt=0)] = 300.0
    """CPU seconds for decoding one recording. A process that sends nothing for twice as long is ended."""
    video_max_bytes: Annotated[int, Field(gt=0)] = 256 * 1024 * 1024
    """Largest video that a request may start from, in bytes."""
    video_max_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Longest video that a request may start from, in seconds. The model reads as much of it as it can generate."""
    video_max_pixels: Annotated[int, Field(gt=0)] = 9_000_000
    """Most pixels of a frame of such a video: width × height. The default takes 4K and refuses 8K."""  # noqa: RUF001
    video_frames_max_bytes: Annotated[int, Field(gt=0)] = 64 * 1024 * 1024
    """Most bytes of the frames that a model gets, each a JPEG of the size of the new video."""
    video_workers: Annotated[int, Field(gt=0)] = 4
    """Most videos that are decoded at a time, each in a process of its own; shared fairly among callers."""
    video_timeout: Annotated[float, Field(gt=0)] = 60.0
    """CPU seconds for decoding one video. The limit of wall-clock time is twice as long."""
    state: Path = Path(".tritonic")
    """Folder for persistent state: files, tasks, and the key that signs URLs of files."""
    files: str | None = None
    """Storage of files: a folder, or a bucket `s3://…`, `gs://…`, `az://…`. Default: `files` in `state`."""
    files_style: Literal["url", "path"] = "url"
    """Form of file references in responses: `url`, a URL at this gateway; `path`, a path on this machine."""
    files_key: SecretStr | None = None
    """Key that signs URLs of files. Default: created once in `state`. Gateways behind one address share it."""
    files_url_seconds: Annotated[float, Field(gt=0)] = 86400.0
    """Lifetime of the URL of a file, in seconds."""
    files_retention: Annotated[float, Field(gt=0)] = 604800.0
    """Retention of a file, in seconds; then it is removed."""
    files_max_bytes: Annotated[int, Field(gt=0)] = 10 * 1024 * 1024 * 1024
    """Most bytes of all files together. The oldest files are removed first."""
    tasks: SecretStr | None = None
    """Database of tasks: `sqlite:///PATH` or `postgresql://…`. Default: SQLite in `state`. Gateways may share one."""
    tasks_concurrency: Annotated[int, Field(gt=0)] = 4
    """Most tasks of one model that run at a time, in all gateways that share the database together."""
    tasks_per_key: Annotated[int, Field(gt=0)] = 1000
    """Most open tasks (queued or running) of one API key, or of all callers without one together; more are refused."""
    tasks_patience: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that a task waits for a model that is unavailable or full before it fails."""
    tasks_retention: Annotated[float, Field(gt=0)] = 604800.0
    """Retention of a task after its end, in seconds; then it is deleted."""
    midjourney_banned_words: Annotated[list[str], NoDecode] = []
    """Words that prompts of /mj must not contain, separated by commas. Default: none."""
    midjourney_queue_code: bool = False
    """Answer a submission of /mj whose task must wait for others with the code 22 instead of 1."""
    webhook_secret: Annotated[list[SecretStr], NoDecode] = []
    """Secret that signs webhooks of tasks: `whsec_` and base64 of 24 to 64 bytes. Two, separated by a comma, both sign,
    so that receivers can change to the new one. Empty: webhooks are not signed."""
    webhook_retry_seconds: Annotated[float, Field(ge=0)] = 259200.0
    """Seconds after the first attempt to send a webhook after which no further attempt is made."""
    webhook_allowed_hosts: Annotated[list[str], NoDecode] = []
    """Hosts of webhooks that may have private addresses, separated by commas: names or addresses, as in URLs."""
    log_format: Literal["json", "console"] = "json"
    """Format of log lines."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level of log lines that are written."""

    _split_lists = field_validator(
        "triton_urls",
        "api_keys",
        "cors_origins",
        "allowed_hosts",
        "media_allowed_hosts",
        "midjourney_banned_words",
        "webhook_secret",
        "webhook_allowed_hosts",
        mode="before",
    )(setting_values.split_list)
    _check_webhook_secret = field_validator("webhook_secret")(setting_values.check_webhook_secrets)
    _check_allowed_hosts = field_validator("allowed_hosts")(setting_values.check_hosts)
    _check_triton_urls = field_validator("triton_urls")(setting_values.check_servers)
    _check_triton_tls_key = field_validator("triton_tls_key")(setting_values.check_tls_key)
    _split_pairs = field_validator("model_aliases", mode="before")(setting_values.split_pairs)
    _read_platforms = field_validator("platforms", mode="before")(setting_values.parse_tables)
    _check_model_requests = field_validator("model_requests")(setting_values.check_share_of_workers)
    _check_rate_limits_store = field_validator("rate_limits_store")(setting_values.check_redis)
    _check_node_api_url = field_validator("node_api_url")(setting_values.check_node_api_url)
