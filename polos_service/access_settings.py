"""Settings of access: who may call, and how much."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from polos_service.quotas import Quota, Quotas
from polos_service.urls import address_problem

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
"""How a token may be signed. What is signed with a shared secret, or not at all, is not here."""

ALGORITHMS: tuple[Algorithm, ...] = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""All of them."""

Scope = Literal["agents:read", "runs:read", "runs:write", "runs:resume", "admin", "*"]
"""A scope that a setting may give."""


class ClientIdentity(BaseModel, extra="forbid"):
    """The caller whom the certificate of a client identifies.

    Attributes:
        project: whose runs they see.
        scopes: what they may do.
        principal: their name; None: the name in the certificate.

    """

    project: str = Field(min_length=1, max_length=256)
    scopes: list[Scope]
    principal: str | None = Field(default=None, min_length=1, max_length=256)


class AccessSettings(BaseSettings):
    """The settings of credentials and of projects."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True)

    bootstrap_key: SecretStr | None = Field(default=None, repr=False)
    """A complete API key, `polos_ID_SECRET`, that may do everything in every project; its runs are
    those of the project `default`. It is for creating the first keys with AdminService, and is not
    in the store: it is no longer valid when the service starts without it. ID has 1 to 32
    lower-case letters and digits, SECRET 32 to 128 letters, digits, `_` and `-`; make SECRET with
    `openssl rand -hex 32`. While this is set, every call needs credentials."""

    agent_projects: dict[str, list[str]] = Field(default_factory=dict)
    """A JSON object that maps the id of an agent to the list of the projects that may use it. For
    callers of other projects the agent does not exist. Every project may use an agent that is
    not named here."""

    jwt_audience: str | None = None
    """What tokens of `POLOS_JWT_ISSUER` must name in their claim `aud`: tokens for other services
    are refused. Separate several with commas."""

    jwt_issuer: str | None = None
    """The URL of an issuer whose JWTs callers may send, exactly as in their claim `iss`.
    With it, calls need credentials. The issuer need not be reachable when the service starts."""

    jwt_jwks_url: str | None = None
    """Where the issuer's key set is. By default it is discovered at
    `ISSUER/.well-known/openid-configuration`."""

    jwt_algorithms: list[Algorithm] = Field(default_factory=lambda: list(ALGORITHMS), min_length=1)
    """A JSON list of the algorithms with which tokens may be signed. By default these are all that
    the service knows: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA."""

    jwt_leeway: float = Field(default=30.0, ge=0, le=300)
    """Seconds by which the clocks of issuer and service may differ."""

    jwt_refresh: float = Field(default=60.0, ge=5, le=3_600)
    """Seconds after which the issuer's key set is fetched again. Tokens of a key that the issuer
    has withdrawn are accepted for at most this time, plus 5 seconds for the fetch."""

    jwt_project_claim: str = Field(default="project", min_length=1)
    """The claim with the caller's project, a string; dots lead into objects, as in `org.name`."""

    jwt_project: str | None = Field(default=None, min_length=1, max_length=256)
    """The project of every caller with a JWT. No claim is read then."""

    jwt_scopes_claim: str = Field(default="scope", min_length=1)
    """The claim with the caller's scopes, a string with spaces or a list; dots lead into objects,
    as in `realm_access.roles`."""

    jwt_scopes: dict[str, list[Scope]] = Field(default_factory=dict)
    """A JSON object that maps words of the scopes claim to lists of scopes, `*` for all. Other
    words are ignored. By default the words that are names of scopes are used."""

    client_identities: dict[str, ClientIdentity] | None = None
    """A JSON object that maps names in client certificates to `{"project": ..., "scopes": [...],
    "principal": ...}`. A name is a URI, DNS name or email address of the certificate's alternative
    names, or its common name if it has none of these; `*` matches characters other than `/` and
    `@`. With it, calls need credentials."""

    project_weights: dict[str, float] = Field(default_factory=dict)
    """A JSON object that maps projects to their weights in the queue, for example
    `{"production": 3}`. A weight is a number greater than 0; the default is 1. While several
    projects have queued runs, a project with weight 3 gets three times the share of a project with
    weight 1. Set the same weights for all processes on a store."""

    project_limits: dict[str, Quota] = Field(default_factory=dict)
    """A JSON object that maps projects to their limits, for example
    `{"*": {"queued": 100}, "production": {"tokens_per_day": 1000000}}`. `*` applies to every
    project without an entry; a project with an entry has only the limits in that entry. The
    limits are `runs`, `starts_per_minute`, `streams`, `queued`, `input_bytes`, `log_bytes`,
    `stored_bytes`, `tokens_per_day` and `cost_per_day` (US dollars). By default there are no
    limits. docs/operations.md describes each limit. Set the same limits for all
    processes on a store."""

    @property
    def jwt_audiences(self) -> list[str]:
        """The audiences."""
        return [one.strip() for one in (self.jwt_audience or "").split(",") if one.strip()]

    @property
    def quotas(self) -> Quotas:
        """The limits of projects."""
        return Quotas(self.project_limits)

    @field_validator("jwt_issuer", "jwt_jwks_url")
    @classmethod
    def _fetchable(cls, value: str | None, info: ValidationInfo) -> str | None:
        # An empty one is not taken for none, which could open the service.
        if value is not None and (problem := address_problem(value)):
            # It may hold a password: it is not repeated.
            raise ValueError(problem)
        if value and info.field_name == "jwt_issuer" and not info.data.get("jwt_audience"):
            raise ValueError(
                "needs POLOS_JWT_AUDIENCE, or tokens for other services would be accepted"
            )
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
