"""The gRPC server: our services, health and reflection, with bounds on what callers take."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from polos.v1 import admin_service_pb2, agent_service_pb2, run_service_pb2
from polos_client import wire
from polos_service.access import Access
from polos_service.access.identities import Identities
from polos_service.addresses import unix_path
from polos_service.api.grpc.admin_service import AdminService
from polos_service.api.grpc.agent_service import AgentService
from polos_service.api.grpc.guard import Guard
from polos_service.api.grpc.handlers import generic_handler
from polos_service.api.grpc.run_service import RunService
from polos_service.api.grpc.slots import ProjectStreams, Slots
from polos_service.catalog import Catalog
from polos_service.config import Settings
from polos_service.listening import ListenError, probe
from polos_service.service import Runs
from polos_service.sidethread import SideThread
from polos_service.tls import Pem, TlsFiles
from polos_service.unix_socket import UnixSocket, private

HANDSHAKE_MS = 20_000
"""Milliseconds that a client has for its handshakes: that of TLS, and that of HTTP/2."""

REFUSED_AT_ONCE = 100
"""Calls beyond its bounds that a connection may have, to be told so; more wait at the client."""

WAITING = 1000
"""Calls that may wait to be handled where the settings have fewer places: gRPC's default."""

OPTIONS = (
    ("grpc.max_receive_message_length", wire.REQUEST_LIMIT),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    # Requests are small: a connection's window need not grow with its bandwidth.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", wire.PING_AFTER_MS),
    ("grpc.keepalive_timeout_ms", wire.PING_TIMEOUT_MS),
)
"""Options of every server; what depends on the settings is added to them."""

RUN_SERVICE = run_service_pb2.DESCRIPTOR.services_by_name["RunService"]
"""The descriptor of RunService."""

AGENT_SERVICE = agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]
"""The descriptor of AgentService."""

ADMIN_SERVICE = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"]
"""The descriptor of AdminService."""

SERVED = (RUN_SERVICE.full_name, AGENT_SERVICE.full_name, ADMIN_SERVICE.full_name)
"""The services whose health is told."""

SERVING = health_pb2.HealthCheckResponse.SERVING
"""The health of a service that answers."""

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
"""The health of a service whose store does not answer."""


class GrpcServer:
    """A gRPC server that serves the use cases, made inside the running loop."""

    def __init__(
        self,
        settings: Settings,
        runs: Runs,
        catalog: Catalog,
        side_thread: SideThread,
        access: Access,
        *,
        shared_port: bool,
    ) -> None:
        """Prepare; with `shared_port`, somebody holds the address for this server and others."""
        self._settings = settings
        self._shared_port = shared_port
        self._socket: UnixSocket | None = None
        self._health = health.aio.HealthServicer()
        self._server = bare_server(settings, access.identities, shared_port=shared_port)
        self._server.add_generic_rpc_handlers(
            (
                generic_handler(RUN_SERVICE, RunService(runs, side_thread, access)),
                generic_handler(AGENT_SERVICE, AgentService(catalog)),
                generic_handler(ADMIN_SERVICE, AdminService(access.keeper, access.signing)),
            )
        )
        if settings.health:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            reflection.enable_server_reflection(reflected(settings), self._server)

    def listen(self) -> str:
        """Listen at the settings' address; return it, with the port for port 0.

        Raises:
            ListenError: the address cannot be listened at.
            TlsError: the certificate or the key cannot be used.

        """
        address = self._settings.listen
        tls = tls_files(self._settings)
        if (path := unix_path(address)) is not None:
            self._socket = UnixSocket(path)
            with private():
                self._add_port(address, tls)
            return address
        if not self._shared_port:
            probe(address)
        return f"{address.rpartition(':')[0]}:{self._add_port(address, tls)}"

    def _add_port(self, address: str, tls: TlsFiles | None) -> int:
        try:
            if tls is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, credentials(tls))
        except RuntimeError as error:  # somebody was quicker, between probe and here
            raise ListenError(f"Cannot listen on {address}: {error}.") from error

    async def start(self) -> None:
        """Serve."""
        await self._server.start()
        await self.tell_health(healthy=True)

    async def tell_health(self, *, healthy: bool) -> None:
        """Tell whoever asks for it whether the service can work."""
        for name in ("", *SERVED):
            await self._health.set(name, SERVING if healthy else NOT_SERVING)

    async def announce_stop(self) -> None:
        """Say NOT_SERVING from now on, while calls are still served."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Take no further call, and end those that are open after `grace` seconds."""
        await self._server.stop(grace)
        if self._socket is not None:
            self._socket.release()


def reflected(settings: Settings) -> tuple[str, ...]:
    """Return the names of the services that reflection tells of."""
    standard = (health.SERVICE_NAME,) if settings.health else ()
    return (*SERVED, *standard, reflection.SERVICE_NAME)


def tls_files(settings: Settings) -> TlsFiles | None:
    """Return the files that the settings name; None where they name none."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that are made of the files, and anew for connections after they change.

    Raises:
        TlsError: they cannot be used.

    """

    def changed() -> grpc.ServerCertificateConfiguration | None:
        pem = files.changed()
        return None if pem is None else configuration(pem)

    pem = files.read()
    return grpc.dynamic_ssl_server_credentials(
        configuration(pem),
        changed,  # type: ignore[arg-type]  # None: as before, which the stubs do not know
        require_client_authentication=pem.client_ca is not None,
    )


def configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    """Return what the files hold, as grpc takes it."""
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.chain)], pem.client_ca)


def bare_server(
    settings: Settings, identities: Identities, *, shared_port: bool = False
) -> grpc.aio.Server:
    """Return a server with the settings' bounds, on which nothing is registered."""
    calls = Slots("call", settings.max_calls, settings.max_calls // 2)
    streams = Slots("stream", settings.max_streams, settings.max_connection_streams)
    guard = Guard(calls, streams, identities, ProjectStreams(settings.quotas))
    on_a_connection = settings.max_connection_streams + settings.max_calls // 2
    # By default, gRPC ends calls at random when more than 1,000 wait to be handled, but all callers
    # that have places may come back at once, after a restart for example.
    may_wait = max(WAITING, settings.max_calls + settings.max_streams)
    options = (
        *OPTIONS,
        # Else a second server on the same port starts, and takes a share of the calls.
        ("grpc.so_reuseport", int(shared_port)),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", on_a_connection + REFUSED_AT_ONCE),
        ("grpc.server.max_pending_requests", may_wait),
        ("grpc.server.max_pending_requests_hard_limit", may_wait),
        ("grpc.max_metadata_size", settings.max_metadata),
        ("grpc.absolute_max_metadata_size", 2 * settings.max_metadata),
        # By default grpc takes no ping within five minutes: it answers those of our client, which
        # pings a silent link every 30 s, with GOAWAY too_many_pings.
        ("grpc.http2.min_ping_interval_without_data_ms", in_ms(settings.min_ping_interval)),
        *aging(settings),
    )
    return grpc.aio.server(interceptors=[guard], options=options)


def aging(settings: Settings) -> tuple[tuple[str, int], ...]:
    """Return the options that send connections away at their age; none where they have no end."""
    if settings.max_connection_age is None:
        return ()
    return (
        ("grpc.max_connection_age_ms", in_ms(settings.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", in_ms(settings.max_connection_age_grace)),
    )


def in_ms(seconds: float) -> int:
    """Return seconds as milliseconds."""
    return round(1000 * seconds)
