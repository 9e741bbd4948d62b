"""Settings of the service: from arguments, else from the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from polos_client.errors import PolosError

SCHEME = "sqlite://"

NATS_SCHEMES = ("nats://", "tls://")

MAX_PORT = 65535


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
    """HOST:PORT to listen at; port 0 takes a free one."""

    store: str = Field(default_factory=default_store)
    """Where runs are kept: `sqlite:///ABSOLUTE/PATH`, which one process owns at a time, or
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

    claim_timeout: float = Field(default=15.0, ge=1)
    """Seconds of silence, where the store is NATS, after which a process counts as dead and its
    runs go on elsewhere."""

    max_runs: int = Field(default=100, ge=1)
    """Runs worked on at once; further ones wait in order."""

    max_queued: int = Field(default=10_000, ge=1)
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

    grace: float = Field(default=5.0, ge=0)
    """Seconds that running runs get when the service is asked to stop; what is not finished
    then is resumed by the next process on the same store."""

    retention: timedelta | None = Field(default=None, gt=timedelta(0))
    """How long runs that have ended are kept, in seconds or as an ISO 8601 duration such as
    P30D; they are removed whole, and reading one is then RUN_EXPIRED. Not set: for ever."""

    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    """The key for the base URL below, sent to no other address."""

    openai_base_url: str | None = Field(default=None, validation_alias="OPENAI_BASE_URL")
    """Where agents of the provider `openai` go that name no base URL of their own. Any server
    of that API will do; not set, it is OpenAI itself."""

    provider_keys: dict[str, SecretStr] = Field(default_factory=dict)
    """A JSON object: the key for each other base URL that agents name as their
    `provider_base_url`. An address without a key is called without one."""

    @classmethod
    def load(cls, *, listen: str | None = None, store: str | None = None) -> Settings:
        """Return the settings: what is given, else the environment's, else the defaults.

        Raises:
            SettingsInvalidError: one cannot be used.

        """
        given = {"listen": listen, "store": store}
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # checked below
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise SettingsInvalidError(
                f"{field}: {first['msg'].removeprefix('Value error, ')}"
            ) from None
        except SettingsError as error:  # no JSON where JSON is due; it quotes no value
            raise SettingsInvalidError(f"{error}; it must be JSON") from None

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or int(port) > MAX_PORT:
            raise ValueError(f"{value!r} is not HOST:PORT, for example 127.0.0.1:50051")
        return value

    @field_validator("openai_base_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is no http:// or https:// address")
        return value or None

    @field_validator("store")
    @classmethod
    def _store_address(cls, value: str) -> str:
        if value.startswith(NATS_SCHEMES):
            # The value may hold a password: it is not repeated.
            if not all(urlsplit(server).hostname for server in servers_of(value)):
                raise ValueError("is not nats://HOST:PORT, for example nats://127.0.0.1:4222")
            return value
        if not value.startswith(f"{SCHEME}/") or not value.removeprefix(SCHEME).strip("/"):
            raise ValueError(
                f"{value!r} is not sqlite:///ABSOLUTE/PATH, for example sqlite:///var/lib/polos.db"
                ", or nats://HOST:PORT"
            )
        return value

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
