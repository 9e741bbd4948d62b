"""Settings of the service, from arguments or from the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict, SettingsError

from polos_client import wire
from polos_client.errors import PolosError
from polos_service.access_settings import AccessSettings
from polos_service.addresses import (
    NATS_SCHEMES,
    SCHEME,
    file_problem,
    listen_address,
    servers_of,
    without_password,
)
from polos_service.limits import MAX_QUEUED
from polos_service.logs import LogLevel
from polos_service.provider_settings import ProviderSettings

CENTURY = timedelta(days=36_500)
"""More than any retention: times are kept in nanoseconds, of which 64 bits hold 292 years."""

EXAMPLES = {
    "agent_projects": '{"payroll": ["finance"]}',
    "caller_options": '["top_k"]',
    "client_identities": '{"spiffe://example.org/app": {"project": "a", "scopes": ["runs:read"]}}',
    "jwt_algorithms": '["RS256"]',
    "jwt_scopes": '{"polos-user": ["runs:read", "runs:write"]}',
    "provider_allow": '["api.openai.com", "https://gpu.example/v1"]',
    "project_limits": '{"*": {"queued": 100}, "production": {"tokens_per_day": 1000000}}',
    "project_weights": '{"production": 3}',
    "provider_environment": '{"GROQ_API_KEY": "KEY"}',
    "provider_keys": '{"https://gpu.example/v1": "KEY"}',
    "provider_switches": '{"https://gpu.example/v1": ["stream_options"]}',
}
"""What settings in JSON look like."""

OPTIONS = {
    "listen": "--listen",
    "tls_cert": "--tls-cert",
    "tls_key": "--tls-key",
    "tls_client_ca": "--tls-client-ca",
    "insecure": "--insecure",
    "show_inputs": "--show-inputs",
    "store": "--store",
    "workers": "--workers",
}
"""Settings that are also options of `polos serve`."""

MAX_SECONDS = 2_000_000
"""More than any age of a connection: gRPC keeps it in milliseconds, in 31 bits."""

PING_SECONDS = wire.PING_TIMEOUT_MS / 1000
"""Seconds between two pings of a client, by default."""


def data_folder() -> Path:
    """Return the user's data folder, in which default stores are."""
    return user_data_path("polos", appauthor=False)


def default_store() -> str:
    """Return the default store's address: a file in the user's data folder."""
    return f"{SCHEME}{data_folder() / 'runs.db'}"


class SettingsInvalidError(PolosError):
    """A setting is invalid. The message names the setting and contains no secrets."""


class Settings(ProviderSettings, AccessSettings):
    """The service's settings. Each one can be set through its environment variable."""

    model_config = SettingsConfigDict(
        env_prefix="POLOS_", populate_by_name=True, use_attribute_docstrings=True
    )

    listen: str = "127.0.0.1:50051"
    """HOST:PORT to listen on, with IPv6 addresses in brackets, as in `[::1]:50051`, or a Unix
    socket, as in `unix:/run/polos/polos.sock`. Port 0 selects a free port. Only the user of the
    service may connect to its socket (mode 0600). An address that other machines may reach needs
    TLS, or POLOS_INSECURE."""

    tls_cert: Path | None = None
    """Path to a PEM file with the certificate of the service, followed by any intermediate
    certificates. With it, the service speaks TLS only. The three files are read again when they
    change: see docs/operations.md."""

    tls_key: Path | None = None
    """Path to a PEM file with the private key of POLOS_TLS_CERT: RSA, P-256 or P-384, without a
    password."""

    tls_client_ca: Path | None = None
    """Path to a PEM file with the certificates of the authorities that issue client certificates.
    With it, every client must present one (mTLS)."""

    insecure: bool = False
    """Whether the service may listen without TLS where other machines may reach it, because a
    proxy or a private network protects it. On loopback addresses and Unix sockets it always may."""

    store: str = Field(default_factory=default_store, repr=False)
    """Where runs are stored. `sqlite:///ABSOLUTE/PATH` is a file that one process owns at a time
    (`~` after the slashes is the home folder). `nats://HOST:4222` is NATS JetStream, version 2.11
    or newer, for any number of processes on any number of machines. Separate several servers of
    a cluster with commas; use `tls://` for encryption; put user and password before the host, as
    in `nats://USER:PASSWORD@HOST:4222`. The default is `runs.db` in the user's data folder; the
    service prints the path when it starts. With `--workers`, the default is a nats-server that the
    service starts, with its data in `nats` in that folder."""

    workers: int | None = Field(default=None, ge=1, le=256)
    """Number of worker processes of `polos serve` that share the address and a NATS store. By
    default the service is a single process without a supervisor."""

    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    """What a commit to the SQLite store, or to the nats-server that `--workers` starts, survives.
    FULL: a power failure. NORMAL: the end of the process, but a power failure may lose the latest
    events, even if readers have seen them."""

    nats_creds: Path | None = None
    """Path to a NATS credentials file with a JWT and its key."""

    nats_nkey: Path | None = None
    """Path to a file with the seed of a NATS nkey."""

    nats_replicas: int = Field(default=1, ge=1, le=5)
    """Number of NATS servers that store each event. Applies when the service creates the streams.
    With 3, one server may fail."""

    claim_timeout: float = Field(default=15.0, ge=1, le=3_600)
    """Seconds of silence after which a process is considered dead and other processes take over
    its runs. Applies to NATS stores."""

    max_runs: int = Field(default=100, ge=1, le=100_000)
    """Maximum number of concurrent runs. Further runs are queued in order."""

    max_queued: int = Field(default=MAX_QUEUED, ge=1, le=1_000_000_000)
    """Maximum number of queued runs. Further starts fail with TOO_MANY_RUNS. If several processes
    start runs at the same time, each may accept a few more."""

    max_retries: int = Field(default=2, ge=0, le=1_000)
    """Maximum number of times that a workflow's function is started over after it raised an
    exception. The results of its finished steps are kept."""

    wait_threshold_seconds: float = Field(default=10.0, ge=0.01, le=86_400)
    """Seconds beyond which a wait suspends its run, if nothing else is at work: a suspended run
    takes neither memory nor one of POLOS_MAX_RUNS until it continues."""

    max_connections: int = Field(default=10_000, ge=1)
    """Maximum number of open connections. Further connections are closed."""

    max_streams: int = Field(default=5_000, ge=1)
    """Maximum number of open streams: readers of runs, health watches and reflection. Further
    streams fail with TOO_MANY_CALLS. docs/operations.md lists the memory that each one needs."""

    max_connection_streams: int = Field(default=2_000, ge=1)
    """Maximum number of open streams per connection. Further streams fail with TOO_MANY_CALLS."""

    max_calls: int = Field(default=1_000, ge=2)
    """Maximum number of open unary calls, such as GetRun and CancelRun; a single connection may
    use half of them. Further calls fail with TOO_MANY_CALLS. Streams are not counted."""

    max_connection_age: float | None = Field(default=None, ge=1, le=MAX_SECONDS)
    """Seconds after which a connection is closed gracefully (GOAWAY), varied by up to 10 %. Its
    client opens another one for further calls, may thereby reach another replica, and presents its
    certificate again. By default a connection may last forever."""

    max_connection_age_grace: float = Field(default=30.0, ge=0, le=MAX_SECONDS)
    """Seconds that the open calls of a connection have to end after its GOAWAY. Then streams end
    with UNAVAILABLE, and their readers continue from their cursors."""

    min_ping_interval: float = Field(default=PING_SECONDS, ge=0.1, le=15)
    """Seconds that a client must leave between two HTTP/2 pings without data. Connections that ping
    more often are closed. The Python client sends a ping after 30 s of silence."""

    max_metadata: int = Field(default=8 * 1024, ge=1024, le=1024 * 1024)
    """Maximum size of a call's metadata in bytes, its credentials included. Between this size and
    twice this size, some calls are refused; above that, all are."""

    log_level: LogLevel = "info"
    """Least severe records that the service logs: `debug`, `info`, `warning` or `error`."""

    log_format: Literal["text", "json"] = "text"
    """How records are written to standard error: `text`, one line per record with any traceback
    below it, or `json`, one object per line with `event`, `level`, `timestamp` (ISO 8601, UTC), the
    record's values, and `exception`, the traceback."""

    health: bool = True
    """Whether the service implements grpc.health.v1."""

    reflection: bool = True
    """Whether the service implements gRPC server reflection, which tools such as grpcurl read."""

    show_inputs: bool = True
    """Whether `GetRun` and `ListRuns`, and with them `polos runs`, show what runs were started
    with. If not, no beginnings of inputs are stored for lists either. The stream of a workflow
    shows its payload in any case."""

    grace: float = Field(default=5.0, ge=0, le=86_400)
    """Seconds that running runs have to finish when the service is asked to stop. The next process
    on the same store resumes the unfinished ones."""

    retention: timedelta | None = Field(default=None, gt=timedelta(0), lt=CENTURY)
    """How long ended runs are kept, in seconds or as an ISO 8601 duration such as P30D. After that
    the whole run is deleted, and reading it fails with RUN_EXPIRED. By default runs are kept
    forever."""

    @classmethod
    def load(
        cls,
        **given: object,
    ) -> Settings:
        """Return the settings from the arguments, the environment or the defaults, in that order.

        Args:
            given: values by the names of settings; None counts as not given.

        Raises:
            SettingsInvalidError: a setting is invalid.

        """
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # checked below
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            # The field alone: what follows may be an address with a password.
            what = first["msg"].removeprefix("Value error, ")
            if not first["loc"]:  # settings that do not go together
                raise SettingsInvalidError(what) from None
            field = str(first["loc"][0])
            where = "".join(f"{one}: " for one in first["loc"][1:3] if field == "project_limits")
            message = f"{named(field)}: {where}{what}"
            raise SettingsInvalidError(message + example(field)) from None
        except SettingsError as error:  # it quotes the field, and no value
            field = next((name for name in cls.model_fields if f'"{name}"' in str(error)), "")
            message = f"{named(field)}: is not valid JSON{example(field)}"
            raise SettingsInvalidError(message) from None

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        return listen_address(value)

    @model_validator(mode="after")
    def _limits_of_the_store(self) -> Settings:
        limited = [
            name for name, one in self.project_limits.items() if one.stored_bytes is not None
        ]
        if limited and self.nats_servers:
            raise SettingsInvalidError(
                f"{named('project_limits')}: {limited[0]}: stored_bytes works with SQLite stores "
                "only; remove it, and limit what NATS stores with POLOS_RETENTION"
            )
        return self

    @field_validator("tls_cert", "tls_key", "tls_client_ca", mode="before")
    @classmethod
    def _no_file(cls, value: object) -> object:
        return value or None

    @field_validator("tls_cert", "tls_key", "tls_client_ca")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        # They are read again later, and a tool may change the working folder.
        return value and value.absolute()

    @field_validator("store")
    @classmethod
    def _store_address(cls, value: str) -> str:
        if value.startswith(NATS_SCHEMES):
            # The value may hold a password: it is not repeated.
            if not all(urlsplit(server).hostname for server in servers_of(value)):
                raise ValueError("is not nats://HOST:PORT, for example nats://127.0.0.1:4222")
            return value
        if problem := file_problem(value):
            raise ValueError(
                f"{without_password(value)!r} is not sqlite:///ABSOLUTE/PATH, for example "
                f"sqlite:///var/lib/polos.db, or nats://HOST:PORT: {problem}"
            )
        path = value.removeprefix(SCHEME).lstrip("/")
        return f"{SCHEME}{Path(path).expanduser()}" if path.startswith("~") else value

    @model_validator(mode="after")
    def _whole_tls(self) -> Self:
        lacking = [name for name in ("tls_cert", "tls_key") if getattr(self, name) is None]
        if len(lacking) == 1 or (lacking and self.tls_client_ca is not None):
            raise ValueError(f"TLS needs {' and '.join(map(named, lacking))} as well")
        if self.client_identities is not None and self.tls_client_ca is None:
            raise ValueError(
                f"{named('client_identities')} needs {named('tls_client_ca')}: without it, no "
                "client presents a certificate, and every call would be refused"
            )
        return self

    @property
    def option_variables(self) -> dict[str, str]:
        """The variables that hand this process's options to a child, without the addresses."""
        paths = {name: getattr(self, name) for name in ("tls_cert", "tls_key", "tls_client_ca")}
        given = {variable(name): str(path) for name, path in paths.items() if path}
        flags = {name: str(getattr(self, name)) for name in ("insecure", "show_inputs")}
        return given | {variable(name): flag for name, flag in flags.items()}

    @property
    def store_path(self) -> Path:
        """The file that `store` names; a fourth slash, as SQLAlchemy wants it, changes nothing."""
        return Path("/" + self.store.removeprefix(SCHEME).lstrip("/"))

    @property
    def nats_servers(self) -> list[str]:
        """The servers that `store` names; none if it is a file."""
        return servers_of(self.store) if self.store.startswith(NATS_SCHEMES) else []

    @property
    def store_shown(self) -> str:
        """The store's address, without user and password."""
        scheme, _, places = self.store.partition("://")
        if not self.nats_servers:
            return self.store
        return f"{scheme}://" + ",".join(one.rpartition("@")[2] for one in places.split(","))


def named(field: str) -> str:
    """Return a setting's environment variable, with its option or field name."""
    if field not in Settings.model_fields or field.isupper():
        return field  # an alias is the variable's name already
    return f"{variable(field)} ({OPTIONS.get(field, field)})"


def variable(field: str) -> str:
    """Return a setting's environment variable."""
    return f"{Settings.model_config['env_prefix']}{field.upper()}"


def example(field: str) -> str:
    """Return what a setting in JSON looks like, as the end of a message; else nothing."""
    return f"; for example {EXAMPLES[field]}" if field in EXAMPLES else ""
