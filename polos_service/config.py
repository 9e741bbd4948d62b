"""Settings of the service: from arguments, else from the environment."""

from __future__ import annotations

import ipaddress
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from polos_client.errors import PolosError
from polos_service.limits import MAX_QUEUED

SCHEME = "sqlite://"

NATS_SCHEMES = ("nats://", "tls://")

MAX_PORT = 65535

CENTURY = timedelta(days=36_500)
"""More than any retention: times are kept in nanoseconds, of which 64 bits hold 292 years."""

OPTIONS = {"listen": "--listen", "store": "--store"}
"""Settings that are options of `polos serve`, too."""


def default_store() -> str:
    """Return the store's address where none is given: a file in the user's data folder."""
    return f"{SCHEME}{user_data_path('polos', appauthor=False) / 'runs.db'}"


class SettingsInvalidError(PolosError):
    """A setting cannot be used; the message names it, and no secret."""


class Settings(BaseSettings):
    """What a service is started with; every field is read from the environment, too."""

    model_config = SettingsConfigDict(
        env_prefix="POLOS_", populate_by_name=True, use_attribute_docstrings=True
    )

    listen: str = "127.0.0.1:50051"
    """HOST:PORT to listen at, with IPv6 in brackets as in `[::1]:50051`; port 0 takes a free one.
    There are no TLS and credentials yet: whoever reaches the port may start and read every run."""

    store: str = Field(default_factory=default_store, repr=False)
    """Where runs are kept: `sqlite:///ABSOLUTE/PATH`, which one process owns at a time (`~` after
    the slashes is the home folder), or
    `nats://HOST:4222` for any number of processes on many machines: a NATS JetStream of version
    2.11 or newer. Several servers of its cluster stand with commas between them; `tls://`
    encrypts; user and password go before the host, as in `nats://USER:PASSWORD@HOST:4222`. By
    default `runs.db` in the user's data folder; the service says the path when it starts."""

    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    """What a commit of the SQLite store survives. FULL: a power failure. NORMAL: the end of the
    process, but a power failure may take the last events with it, which readers had seen."""

    nats_creds: Path | None = None
    """A credentials file for NATS, with a JWT and its key."""

    nats_nkey: Path | None = None
    """A file with the seed of an nkey for NATS."""

    nats_replicas: int = Field(default=1, ge=1, le=5)
    """Servers of the NATS cluster that keep each event, where the service makes the streams.
    With 3, one may fail."""

    claim_timeout: float = Field(default=15.0, ge=1, le=3_600)
    """Seconds of silence, where the store is NATS, after which a process counts as dead and its
    runs go on elsewhere."""

    max_runs: int = Field(default=100, ge=1, le=100_000)
    """Runs worked on at once; further ones wait in order."""

    max_queued: int = Field(default=MAX_QUEUED, ge=1, le=1_000_000_000)
    """Runs that may wait; a start beyond that is refused as TOO_MANY_RUNS. Where several
    processes start runs at once, each may let a few more in."""

    max_connections: int = Field(default=10_000, ge=1)
    """Connections that are open at once; a further one is closed."""

    max_streams: int = Field(default=5_000, ge=1)
    """Streams that are open at once: readers of runs, watchers of health, reflection. A further
    one is refused as TOO_MANY_CALLS. See the table of memory in docs/operations.md."""

    max_connection_streams: int = Field(default=2_000, ge=1)
    """Streams that one connection may have open; a further one is refused as TOO_MANY_CALLS."""

    max_calls: int = Field(default=1_000, ge=2)
    """Calls that answer once, such as GetRun and CancelRun, that are open at once; one connection
    may have half of them. A further one is refused as TOO_MANY_CALLS. Streams do not count."""

    grace: float = Field(default=5.0, ge=0, le=86_400)
    """Seconds that running runs get when the service is asked to stop; what is not finished
    then is resumed by the next process on the same store."""

    retention: timedelta | None = Field(default=None, gt=timedelta(0), lt=CENTURY)
    """How long runs that have ended are kept, in seconds or as an ISO 8601 duration such as
    P30D; they are removed whole, and reading one is then RUN_EXPIRED. Not set: for ever."""

    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    """The key for the base URL below, sent to no other address."""

    openai_base_url: str | None = Field(
        default=None, validation_alias="OPENAI_BASE_URL", repr=False
    )
    """Where agents of the provider `openai` go that name no base URL of their own. Any server
    of that API will do; not set, it is OpenAI itself."""

    provider_keys: dict[str, SecretStr] = Field(default_factory=dict, repr=False)
    """A JSON object: the key for each other base URL that agents name as their
    `provider_base_url`. An address without a key is called without one."""

    @classmethod
    def load(
        cls, *, listen: str | None = None, store: str | None = None, max_runs: int | None = None
    ) -> Settings:
        """Return the settings: what is given, else the environment's, else the defaults.

        Raises:
            SettingsInvalidError: one cannot be used.

        """
        given = {"listen": listen, "store": store, "max_runs": max_runs}
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # checked below
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            # The field alone: what follows may be an address with a password.
            place = named(str(first["loc"][0]))
            message = f"{place}: {first['msg'].removeprefix('Value error, ')}"
            raise SettingsInvalidError(message) from None
        except SettingsError as error:  # it quotes the field, and no value
            field = next((name for name in cls.model_fields if f'"{name}"' in str(error)), "")
            raise SettingsInvalidError(f"{named(field)}: is not valid JSON") from None

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not (port.isascii() and port.isdecimal() and int(port) <= MAX_PORT and is_host(host)):
            hint = f"; IPv6 stands in brackets: [{host}]:{port}" if is_ipv6(host) else ""
            hint = f"; IPv6 stands in brackets: [{value}]:50051" if is_ipv6(value) else hint
            raise ValueError(
                f"{value!r} is not HOST:PORT, for example 127.0.0.1:50051, with a port from 0 to "
                f"{MAX_PORT}{hint}"
            )
        return value

    @field_validator("openai_base_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            # The value may hold a password: it is not repeated.
            raise ValueError("does not start with http:// or https://")
        return value or None

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
    """Return the URLs of servers that share a scheme, and stand with commas between them."""
    scheme, _, places = value.partition("://")
    return [f"{scheme}://{place.rpartition('://')[2]}" for place in places.split(",")]


def file_problem(value: str) -> str | None:
    """Return why the value does not name a file of SQLite; None if it does."""
    path = value.removeprefix(SCHEME)
    if path == value:
        return "write sqlite:// before an absolute path, with three slashes in all"
    if not path.strip("/") or "\0" in path:
        return "it names no file"
    if path.lstrip("/").startswith("~"):
        return home_problem(path.lstrip("/"))
    if re.match(r"/*[A-Za-z]:[/\\]", path) and os.name != "nt":
        return "this machine has no drive letters"
    if not path.startswith("/"):
        return f"the path is relative; from here it is sqlite://{Path.cwd() / path}"
    return None


def home_problem(path: str) -> str | None:
    """Return why `~` or `~user` at the start of a path cannot be expanded; None if it can."""
    try:
        Path(path).expanduser()
    except RuntimeError:
        return f"the home folder {path.partition('/')[0]} is not known"
    return None


def without_password(value: str) -> str:
    """Return an address without user and password."""
    return re.sub(r"://[^/]*@", "://", value)


def named(field: str) -> str:
    """Return how whoever runs the service names a setting: its variable, and what else it has."""
    if field not in Settings.model_fields or field.isupper():
        return field  # an alias is the variable's name already
    variable = f"{Settings.model_config['env_prefix']}{field.upper()}"
    return f"{variable} ({OPTIONS.get(field, field)})"


def is_ipv6(host: str) -> bool:
    """Return whether this is an IPv6 address, without brackets."""
    try:
        return bool(ipaddress.IPv6Address(host))
    except ValueError:
        return False


def is_host(host: str) -> bool:
    """Return whether this may stand before a port: a name, IPv4, or IPv6 in brackets."""
    if host.startswith("["):
        return host.endswith("]") and is_ipv6(host[1:-1])
    return re.fullmatch(r"[\w.-]+", host) is not None
