"""PolosClient: a service, and everything that can be asked of it."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from polos.v1 import run_service_pb2 as rpc
from polos.v1.agent_pb2 import Agent as AgentMessage
from polos.v1.agent_service_pb2 import GetAgentRequest, ListAgentsRequest
from polos.v1.agent_service_pb2_grpc import AgentServiceStub
from polos.v1.run_pb2 import Run, RunState
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.calls.connection import Connection, checked_id
from polos_client.calls.credential import ApiKey
from polos_client.calls.states import STATES
from polos_client.calls.target import FilePath, Tls, find_target
from polos_client.errors import DefinitionError, InvalidRequest
from polos_client.unbuilt import refuse
from polos_client.wire import PAGE_LIMIT, TOKEN_SECONDS

if TYPE_CHECKING:
    from polos_client.calls.handle import ExecutionHandle


class PolosClient(Connection):
    """A service. May be made anywhere, also outside an event loop.

    It connects when it is first used, once in each event loop, and may be used by any
    number of tasks. After `close` it connects anew if it is used again.

    Attributes:
        address: where the service is, as `host:port`, `unix:path` or `dns:///host:port`.
        reconnect_timeout: seconds for which a reader of a run tries to reach a service.

    """

    def __init__(
        self,
        address: str | None = None,
        api_key: ApiKey | None = None,
        project_id: str | None = None,  # noqa: ARG002 - credentials alone choose a project
        deployment_id: str | None = None,
        *,
        api_url: str | None = None,
        tls: Tls | None = None,
        client_cert: FilePath | None = None,
        client_key: FilePath | None = None,
        reconnect_timeout: float = 60.0,
    ) -> None:
        """Remember the service; nothing is sent.

        Args:
            address: `HOST:PORT`, with IPv6 in brackets; `unix:PATH`; `dns:///HOST:PORT`; or a
                URL: https:// is TLS, http:// is plaintext. None: POLOS_ADDRESS, else
                POLOS_API_URL, else 127.0.0.1:50051.
            api_key: an API key or a token, sent with each call as `authorization: Bearer`, over
                TLS or to this machine only; or a function, async or not, that returns the
                current one. It is called for a call if it was not within the last 30 s, and once
                more where the service refuses what it returned; a stream that ends because its
                credential does then goes on from its cursor. It has 10 s, and may be called in
                another thread. None: POLOS_API_KEY, else what the file POLOS_API_KEY_FILE holds,
                else none is sent.
            project_id: accepted and not used: only credentials choose a project.
            deployment_id: ignored, with a warning: a service has one deployment.
            api_url: another name for an address that is a URL.
            tls: True: TLS with the certificate authorities of this machine; a path: those of
                that PEM file alone; `grpc.ChannelCredentials`: as they say; False: plaintext.
                None: as the URL or POLOS_TLS (true, false or a path) says, else plaintext. New
                connections are made with what the file holds then.
            client_cert: a path: the PEM file with the client's own certificate, for a service
                that demands one (mTLS), and what leads to its authority; implies TLS, and is read
                again like `tls`. None: POLOS_CLIENT_CERT, else none is shown.
            client_key: a path: the PEM file with its key, without a password. None:
                POLOS_CLIENT_KEY, else it is in the same file as the certificate.
            reconnect_timeout: seconds for which a reader of a run tries to reach a service
                that has gone before it raises ConnectionLost; other calls try no longer, and
                10 s at most.

        Raises:
            DefinitionError: a value cannot be used, or two contradict each other; or the key
                would travel in plaintext beyond this machine.

        """
        target = find_target(
            address,
            api_url=api_url,
            tls=tls,
            client_cert=client_cert,
            client_key=client_key,
            api_key=api_key,
        )
        super().__init__(target, reconnect_timeout=reconnect_timeout)
        if deployment_id is not None:
            told = f"deployment_id={deployment_id!r} is ignored: a service has one deployment"
            warnings.warn(told, stacklevel=2)

    async def invoke(  # noqa: PLR0917 - the order in which the original SDK takes them
        self,
        workflow_id: str,
        payload: Mapping[str, Any] | None = None,
        queue_name: str | None = None,
        queue_concurrency_limit: int | None = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: Any = None,
        run_timeout_seconds: float | None = None,
        *,
        request_id: str | None = None,
    ) -> ExecutionHandle:
        """Start a run of an agent by its id, and return the handle when the run is on disk.

        Args:
            workflow_id: the agent's id.
            payload: `{"input": ..., "streaming": False, "provider_kwargs": {...}}`; all but
                `input` are optional.
            queue_name: not built yet.
            queue_concurrency_limit: not built yet.
            concurrency_key: not built yet.
            session_id: groups runs for listing; at most 256 characters.
            user_id: who it is for, for listing; at most 256 characters.
            initial_state: what tools find in their context: a dict of JSON values, or a model;
                at most 256 KiB as JSON.
            run_timeout_seconds: how long the run may take, from 0.001 s to 100 years; None: what
                the agent's deadlines say.
            request_id: makes it safe to repeat: the same id with the same arguments is the same
                run; from 1 to 128 characters. None: a new one.

        Raises:
            DefinitionError: an option that is not built yet was given. Nothing was started.
            InvalidRequest: an argument cannot be used. Nothing was started.
            AgentNotFound: the service has no such agent.
            RequestIdReused: `request_id` started a run with other arguments.
            CallError: the service refused the start.
            ConnectionLost: the service could not be reached.

        """
        from polos_client.calls import running  # noqa: PLC0415 - pydantic: a client alone needs none
        from polos_client.calls.start import Start, checked_payload, warn_of_session  # noqa: PLC0415

        refuse(
            "client.invoke",
            {
                "queue_name": queue_name,
                "queue_concurrency_limit": queue_concurrency_limit,
                "concurrency_key": concurrency_key,
            },
        )
        given = {} if payload is None else payload
        streaming = checked_payload(given)
        warn_of_session(session_id)
        start = Start(
            workflow_id=workflow_id,
            input=given["input"],
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=run_timeout_seconds,
            provider_options=given.get("provider_kwargs") or {},
            request_id=request_id,
        )
        return await running.invoke(self, start, streaming=streaming)

    async def batch_invoke(
        self,
        workflows: Any,  # noqa: ARG002
        session_id: str | None = None,  # noqa: ARG002
        user_id: str | None = None,  # noqa: ARG002
    ) -> NoReturn:
        """Refuse: batches are not built yet in this version.

        Raises:
            DefinitionError: always.

        """
        raise DefinitionError(
            "client.batch_invoke is not built yet in this version; call client.invoke for each"
        )

    async def resume(
        self,
        suspend_workflow_id: str,  # noqa: ARG002
        suspend_execution_id: str,  # noqa: ARG002
        suspend_step_key: str,  # noqa: ARG002
        data: Any,  # noqa: ARG002
    ) -> NoReturn:
        """Refuse: runs that wait for somebody are not built yet in this version.

        Raises:
            DefinitionError: always.

        """
        raise DefinitionError(
            "client.resume is not built yet in this version: no run waits for an answer"
        )

    async def get_execution(self, execution_id: str) -> dict[str, Any]:
        """Return a run's record as JSON values; a key without a value is None.

        Returns:
            `id`, `workflow_id`, `status` ("queued", "running", "waiting", "completed", "failed"
            or "cancelled"), `result` (the AgentResult as a dict; None unless completed), `error`
            (the message; None unless failed), `created_at`, `started_at`, `completed_at` and
            `cancelled_at` (ISO 8601 in UTC), `session_id`, `user_id`, `parent_execution_id`,
            `root_execution_id`, `step_key` and `output_schema_name`. Always None, since the
            service does not tell them: `payload`, `run_timeout_seconds`, `retry_count`,
            `queue_name`, `concurrency_key`, `batch_id`, `deployment_id`, `assigned_to_worker`
            and `cancelled_by`.

        Raises:
            RunNotFound: there is no such run.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        from polos_client.calls import record  # noqa: PLC0415

        return await record.execution(self, execution_id)

    async def cancel_execution(self, execution_id: str) -> bool:
        """Cancel a run; return False if it had already ended otherwise.

        Raises:
            RunNotFound: there is no such run.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        from polos_client.calls import record  # noqa: PLC0415

        return await record.cancel(self, execution_id)

    async def list_runs(
        self,
        *,
        workflow_id: str | None = None,
        state: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Run]:
        """Yield runs, the newest first; without their outcomes and tool results.

        Args:
            workflow_id: only runs of this agent.
            state: only runs in this state: "queued", "running", "waiting", "completed",
                "failed" or "cancelled".
            session_id: only runs of this session.
            user_id: only runs for this user.
            created_from: only runs created then or later; a time without a zone is in UTC.
            created_before: only runs created before; likewise.
            limit: how many at most, from 0; None: all.

        Raises:
            InvalidRequest: an argument cannot be used.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        if state is not None and state not in STATES:
            raise InvalidRequest({"state": f"is {state!r}; it must be {', '.join(STATES)}"})
        if limit is not None and limit < 0:
            raise InvalidRequest({"limit": f"is {limit}; it cannot be negative"})
        request = rpc.ListRunsRequest(
            workflow_id=workflow_id or "",
            state=STATES[state] if state else RunState.RUN_STATE_UNSPECIFIED,
            session_id=session_id or "",
            user_id=user_id or "",
        )
        if created_from is not None:
            request.created_from.FromDatetime(created_from)
        if created_before is not None:
            request.created_before.FromDatetime(created_before)
        left = limit
        while left is None or left > 0:
            request.page_size = PAGE_LIMIT if left is None else min(left, PAGE_LIMIT)
            page = await self.call(lambda channel: RunServiceStub(channel).ListRuns, request)
            for run in page.runs:
                yield run
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
            left = None if left is None else left - len(page.runs)

    async def delete_run(self, run_id: str) -> None:
        """Remove an ended run, with its log.

        The client does not repeat it: after a lost answer the run would not be found.

        Raises:
            RunNotFound: there is no such run.
            RunNotFinished: it has not ended.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        request = rpc.DeleteRunRequest(run_id=checked_id(run_id))
        await self.call(lambda channel: RunServiceStub(channel).DeleteRun, request, again=False)

    async def run_token(self, run_id: str, seconds: float = 3600.0) -> str:
        """Return a token with which whoever has it can read one run, and nothing else.

        It is sent as an API key is, `PolosClient(api_key=token)` for example.

        Args:
            run_id: the run.
            seconds: how long it is good, from 1 to 86400; at most as long as the credential of
                this client.

        Raises:
            InvalidRequest: an argument cannot be used.
            RunNotFound: there is no such run.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        if not 1 <= seconds <= TOKEN_SECONDS:
            raise InvalidRequest({"seconds": f"is {seconds}; it must be from 1 to {TOKEN_SECONDS}"})
        request = rpc.CreateRunTokenRequest(run_id=checked_id(run_id))
        request.lifetime.FromMilliseconds(round(seconds * 1000))
        answer = await self.call(lambda channel: RunServiceStub(channel).CreateRunToken, request)
        return answer.token

    async def get_agent(self, agent_id: str) -> AgentMessage:
        """Return an agent that the service has loaded.

        Raises:
            AgentNotFound: there is no such agent.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        request = GetAgentRequest(agent_id=agent_id)
        answer = await self.call(lambda channel: AgentServiceStub(channel).GetAgent, request)
        return answer.agent

    async def list_agents(self) -> list[AgentMessage]:
        """Return all agents that the service has loaded, by id.

        Raises:
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        agents: list[AgentMessage] = []
        request = ListAgentsRequest()
        while True:
            page = await self.call(lambda channel: AgentServiceStub(channel).ListAgents, request)
            agents += page.agents
            if not page.next_page_token:
                return agents
            request.page_token = page.next_page_token
