"""Settings of the service, from arguments or from the environment."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from polos_client.errors import PolosError
from polos_service.limits import MAX_QUEUED
from polos_service.quotas import Quota, Quotas

SCHEME = "sqlite://"

NATS_SCHEMES = ("nats://", "tls://")

MAX_PORT = 65535

CENTURY = timedelta(days=36_500)
"""More than any retention: times are kept in nanoseconds, of which 64 bits hold 292 years."""

RESERVED = frozenset(
    {
        *("extra_body", "extra_headers", "extra_query", "input", "instructions", "messages"),
        *("model", "stream", "stream_options", "system", "tools"),
    }
)
"""Parameters of a model call that the service sets itself, or that would set others."""

SwitchName = Literal[
    "stream_options",
    "parallel_tool_calls",
    "tool_choice",
    "store",
    "include",
    "max_tokens",
    "max_completion_tokens",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "extra_content",
]
"""A field that Polos adds to requests by itself; see polos_service/models/switches.py."""

EXAMPLES = {
    "agent_projects": '{"payroll": ["finance"]}',
    "caller_options": '["top_k"]',
    "project_limits": '{"*": {"queued": 100}, "production": {"tokens_per_day": 1000000}}',
    "project_weights": '{"production": 3}',
    "provider_environment": '{"GROQ_API_KEY": "KEY"}',
    "provider_keys": '{"https://gpu.example/v1": "KEY"}',
    "provider_switches": '{"https://gpu.example/v1": ["stream_options"]}',
}
"""What settings in JSON look like."""

OPTIONS = {"listen": "--listen", "store": "--store", "workers": "--workers"}
"""Settings that are also options of `polos serve`."""


def data_folder() -> Path:
    """Return the user's data folder, in which default stores are."""
    return user_data_path("polos", appauthor=False)


def default_store() -> str:
    """Return the default store's address: a file in the user's data folder."""
    return f"{SCHEME}{data_folder() / 'runs.db'}"


class SettingsInvalidError(PolosError):
    """A setting is invalid. The message names the setting and contains no secrets."""


class Settings(BaseSettings):
    """The service's settings. Each one can be set through its environment variable."""

    model_config = SettingsConfigDict(
        env_prefix="POLOS_", populate_by_name=True, use_attribute_docstrings=True
    )

    listen: str = "127.0.0.1:50051"
    """HOST:PORT to listen on, with IPv6 addresses in brackets, as in `[::1]:50051`. Port 0 selects
    a free port. TLS and credentials are not supported yet: anyone who can reach the port can start
    and read every run."""

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

    project_weights: dict[str, float] = Field(default_factory=dict)
    """A JSON object that maps projects to their weights in the queue, for example
    `{"production": 3}`. A weight is a number greater than 0; the default is 1. While several
    projects have queued runs, a project with weight 3 gets three times the share of a project with
    weight 1. Set the same weights for all processes on a store."""

    project_limits: dict[str, Quota] = Field(default_factory=dict)
    """A JSON object that maps projects to their limits, for example
    `{"*": {"queued": 100}, "production": {"tokens_per_day": 1000000}}`. `*` stands for each project
    that is not named; a project that is named has only the limits that are given with it. The
    limits are `runs`, `starts_per_minute`, `streams`, `queued`, `input_bytes`, `log_bytes`,
    `stored_bytes`, `tokens_per_day` and `cost_per_day` (US dollars). By default a project has no
    limits of its own. docs/operations.md describes each limit. Set the same limits for all
    processes on a store."""

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

    grace: float = Field(default=5.0, ge=0, le=86_400)
    """Seconds that running runs have to finish when the service is asked to stop. The next process
    on the same store resumes the unfinished ones."""

    retention: timedelta | None = Field(default=None, gt=timedelta(0), lt=CENTURY)
    """How long ended runs are kept, in seconds or as an ISO 8601 duration such as P30D. After that
    the whole run is deleted, and reading it fails with RUN_EXPIRED. By default runs are kept
    forever."""

    bootstrap_key: SecretStr | None = Field(default=None, repr=False)
    """An API key in full, `polos_ID_SECRET`, that may do everything in every project; its runs are
    those of the project `default`. It is for creating the first keys with AdminService, and is not
    in the store: it ends when the service starts without it. ID has 1 to 32 lower-case letters and
    digits, SECRET 32 to 128 letters, digits, `_` and `-`; make SECRET with `openssl rand -hex 32`.
    While this is set, every call needs credentials."""

    agent_projects: dict[str, list[str]] = Field(default_factory=dict)
    """A JSON object that maps the id of an agent to the list of the projects that may use it. For
    callers of other projects the agent does not exist. An agent that is not named here is for every
    project."""

    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    """The API key for OPENAI_BASE_URL. It is never sent to another address."""

    openai_base_url: str | None = Field(
        default=None, validation_alias="OPENAI_BASE_URL", repr=False
    )
    """The base URL for agents of the provider `openai` that do not set their own. Any server with a
    compatible API works. The default is OpenAI itself."""

    provider_keys: dict[str, SecretStr] = Field(default_factory=dict, repr=False)
    """A JSON object that maps each `provider_base_url` of an agent to its API key. A base URL
    without a key is called without authentication."""

    provider_environment: dict[str, str] = Field(
        default_factory=lambda: dict(os.environ), repr=False
    )
    """A JSON object with the variables that providers read: keys, base URLs and headers. The
    default is the environment of the service."""

    caller_options: list[str] = Field(default_factory=list)
    """A JSON list of further model options that a caller may choose for a run, for example
    `["top_k"]`. Providers get them unchecked."""

    prices: Path | None = None
    """Path to a JSON file with the prices of models that the built-in price list does not know, or
    knows otherwise. docs/providers.md describes it."""

    provider_switches: dict[str, list[SwitchName]] = Field(default_factory=dict, repr=False)
    """A JSON object that maps a base URL to a list of the fields that its server refuses. They are
    left out of requests unless an agent or a caller sets them: `stream_options`,
    `parallel_tool_calls`, `tool_choice`, `store`, `include`, `reasoning`, `reasoning_content`,
    `reasoning_details`, `extra_content`. `max_tokens` and `max_completion_tokens` are replaced by
    one another. A field that a server refuses by name is left out even without this setting, at
    the price of one refused request for each process."""

    @classmethod
    def load(
        cls,
        *,
        listen: str | None = None,
        store: str | None = None,
        workers: int | None = None,
        max_runs: int | None = None,
    ) -> Settings:
        """Return the settings from the arguments, the environment or the defaults, in that order.

        Raises:
            SettingsInvalidError: a setting is invalid.

        """
        given = {"listen": listen, "store": store, "workers": workers, "max_runs": max_runs}
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # checked below
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            # The field alone: what follows may be an address with a password.
            field = str(first["loc"][0])
            where = "".join(f"{one}: " for one in first["loc"][1:3] if field == "project_limits")
            message = f"{named(field)}: {where}{first['msg'].removeprefix('Value error, ')}"
            raise SettingsInvalidError(message + example(field)) from None
        except SettingsError as error:  # it quotes the field, and no value
            field = next((name for name in cls.model_fields if f'"{name}"' in str(error)), "")
            message = f"{named(field)}: is not valid JSON{example(field)}"
            raise SettingsInvalidError(message) from None

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not (port.isascii() and port.isdecimal() and int(port) <= MAX_PORT and is_host(host)):
            hint = f"; put IPv6 in brackets: [{host}]:{port}" if is_ipv6(host) else ""
            hint = f"; put IPv6 in brackets: [{value}]:50051" if is_ipv6(value) else hint
            raise ValueError(
                f"{value!r} is not HOST:PORT, for example 127.0.0.1:50051, with a port from 0 to "
                f"{MAX_PORT}{hint}"
            )
        return value

    @model_validator(mode="after")
    def _limits_of_the_store(self) -> Settings:
        limited = [
            name for name, one in self.project_limits.items() if one.stored_bytes is not None
        ]
        if limited and self.nats_servers:
            raise SettingsInvalidError(
                f"{named('project_limits')}: {limited[0]}: stored_bytes works with SQLite stores "
                "only; remove it, and bound what NATS stores with POLOS_RETENTION"
            )
        return self

    @field_validator("openai_base_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            # The value may hold a password: it is not repeated.
            raise ValueError("does not start with http:// or https://")
        return value or None

    @field_validator("provider_keys", "provider_switches")
    @classmethod
    def _web_addresses(cls, value: dict[str, object]) -> dict[str, object]:
        for number, address in enumerate(value, 1):
            if not address.strip().startswith(("http://", "https://")):
                # It may be a key in the wrong place: it is not repeated.
                raise ValueError(f"name {number} does not start with http:// or https://")
        return value

    @field_validator("project_weights")
    @classmethod
    def _weights(cls, value: dict[str, float]) -> dict[str, float]:
        for project, weight in value.items():
            if not 0 < weight < math.inf:
                raise ValueError(
                    f"the weight of project {project!r} is {weight:g}; it must be greater than 0"
                )
        return value

    @field_validator("prices", mode="before")
    @classmethod
    def _no_file(cls, value: object) -> object:
        return value or None

    @field_validator("caller_options")
    @classmethod
    def _parameters(cls, value: list[str]) -> list[str]:
        if taken := sorted(RESERVED & set(value)):
            raise ValueError(f"{taken[0]} is not a caller's to choose")
        return value

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

    @property
    def quotas(self) -> Quotas:
        """The limits of projects."""
        return Quotas(self.project_limits)

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


def servers_of(value: str) -> list[str]:
    """Return the URLs of the comma-separated servers that share one scheme."""
    scheme, _, places = value.partition("://")
    return [f"{scheme}://{place.rpartition('://')[2]}" for place in places.split(",")]


def file_problem(value: str) -> str | None:
    """Return why the value does not name a SQLite file; None if it does."""
    path = value.removeprefix(SCHEME)
    if path == value:
        return "write sqlite:// before an absolute path, which gives three slashes in total"
    if not path.strip("/") or "\0" in path:
        return "it does not name a file"
    if path.lstrip("/").startswith("~"):
        return home_problem(path.lstrip("/"))
    if re.match(r"/*[A-Za-z]:[/\\]", path) and os.name != "nt":
        return "this system has no drive letters"
    if not path.startswith("/"):
        return f"the path is relative; the absolute one is sqlite://{Path.cwd() / path}"
    return None


def home_problem(path: str) -> str | None:
    """Return why `~` or `~user` at the start of a path cannot be expanded; None if it can."""
    try:
        Path(path).expanduser()
    except RuntimeError:
        return f"the home folder {path.partition('/')[0]} is unknown"
    return None


def without_password(value: str) -> str:
    """Return an address without user and password."""
    return re.sub(r"://[^/]*@", "://", value)


def named(field: str) -> str:
    """Return a setting's environment variable, with its option or field name."""
    if field not in Settings.model_fields or field.isupper():
        return field  # an alias is the variable's name already
    variable = f"{Settings.model_config['env_prefix']}{field.upper()}"
    return f"{variable} ({OPTIONS.get(field, field)})"


def example(field: str) -> str:
    """Return what a setting in JSON looks like, as the end of a message; else nothing."""
    return f"; for example {EXAMPLES[field]}" if field in EXAMPLES else ""


def is_ipv6(host: str) -> bool:
    """Return whether this is an IPv6 address, without brackets."""
    try:
        return bool(ipaddress.IPv6Address(host))
    except ValueError:
        return False


def is_host(host: str) -> bool:
    """Return whether this is valid before a port: a name, IPv4, or IPv6 in brackets."""
    if host.startswith("["):
        return host.endswith("]") and is_ipv6(host[1:-1])
    return re.fullmatch(r"[\w.-]+", host) is not None
