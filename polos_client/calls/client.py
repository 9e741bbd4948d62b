"""PolosClient: a service, and everything that can be asked of it."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from polos.v1 import run_service_pb2 as rpc
from polos.v1.agent_pb2 import Agent as AgentMessage
from polos.v1.agent_pb2 import Workflow as WorkflowMessage
from polos.v1.agent_service_pb2 import GetAgentRequest
from polos.v1.agent_service_pb2_grpc import AgentServiceStub
from polos.v1.run_pb2 import Run, RunTree
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.budget import Budget
from polos_client.calls.connection import Connection, checked_id
from polos_client.calls.credential import ApiKey
from polos_client.calls.target import FilePath, Tls, find_target
from polos_client.errors import InvalidRequest
from polos_client.unbuilt import refuse
from polos_client.wire import TOKEN_SECONDS

if TYPE_CHECKING:
    from polos_client.calls.batches import Entry
    from polos_client.calls.handle import ExecutionHandle
    from polos_client.calls.waiting import Wait


class PolosClient(Connection):
    """A client of a service. May be created anywhere, even outside an event loop.

    It connects when it is first used, once in each event loop, and may be used by any
    number of tasks. After `close` it connects again if it is used again.

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
                current one. What it returns is kept for up to 30 s; the function is called once
                more if the service refuses it. A stream whose credential ends continues from its
                cursor with the next one. The function has 10 s, and may be called in another
                thread. None: POLOS_API_KEY, else the contents of the file POLOS_API_KEY_FILE,
                else none is sent.
            project_id: accepted but not used: only credentials choose a project.
            deployment_id: ignored, with a warning: a service has one deployment.
            api_url: another name for an address that is a URL.
            tls: True: TLS with the certificate authorities of this machine; a path: those of
                that PEM file alone; `grpc.ChannelCredentials`: these; False: plaintext.
                None: as the URL or POLOS_TLS (true, false or a path) says, else plaintext. The
                file is read again for new connections.
            client_cert: a path: the PEM file with the client's own certificate and any
                intermediate certificates, for a service that requires one (mTLS); implies TLS,
                and is read again like `tls`. None: POLOS_CLIENT_CERT, else none is presented.
            client_key: a path: the PEM file with its key, without a password. None:
                POLOS_CLIENT_KEY, else it is in the same file as the certificate.
            reconnect_timeout: seconds for which a reader of a run tries to reach an unreachable
                service before it raises ConnectionLost; other calls try for the same time, but
                for at most 10 s.

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
        payload: Any = None,
        queue_name: str | None = None,
        queue_concurrency_limit: int | None = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: Any = None,
        run_timeout_seconds: float | None = None,
        *,
        budget: Budget | None = None,
        request_id: str | None = None,
    ) -> ExecutionHandle:
        """Start a run of an agent or a workflow by its id; return the handle when it is on disk.

        Args:
            workflow_id: the agent's or the workflow's id.
            payload: what the workflow is given, as JSON values or a model; for an agent
                `{"input": ..., "streaming": False, "provider_kwargs": {...}}`, of which all but
                `input` are optional.
            queue_name: not built yet.
            queue_concurrency_limit: not built yet.
            concurrency_key: not built yet.
            session_id: groups runs for listing; at most 256 characters.
            user_id: who it is for, for listing; at most 256 characters.
            initial_state: what tools find in their context, and the initial state of a workflow:
                a dict of JSON values, or a model; at most 256 KiB as JSON.
            run_timeout_seconds: how long the run may take, from 0.001 s to 100 years; None: as in
                the agent's deadlines, and for a workflow any time.
            budget: what the model calls of the run and its children may use together; None: no
                limit.
            request_id: makes the start safe to repeat: the same id with the same arguments is the
                same run; 1 to 128 characters. None: a new one.

        Raises:
            DefinitionError: an option that is not built yet was given. Nothing was started.
            InvalidRequest: an argument is invalid. Nothing was started.
            AgentNotFound: the service has no such agent or workflow.
            RequestIdReused: `request_id` started a run with other arguments.
            CallError: the service refused the start.
            ConnectionLost: the service could not be reached.

        """
        from polos_client.calls import running  # noqa: PLC0415 - pydantic: a client alone needs none
        from polos_client.calls.start import Start, warn_of_session  # noqa: PLC0415

        refuse(
            "client.invoke",
            {
                "queue_name": queue_name,
                "queue_concurrency_limit": queue_concurrency_limit,
                "concurrency_key": concurrency_key,
            },
        )
        warn_of_session(session_id)
        start = Start(
            workflow_id=workflow_id,
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=run_timeout_seconds,
            budget=budget,
            request_id=request_id,
        )
        return await running.invoke_by_id(self, start, payload)

    async def batch_invoke(
        self,
        workflows: Sequence[Entry],
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> list[ExecutionHandle]:
        """Start runs of agents and workflows by their ids, one after the other.

        If a start is refused, its error is raised; the runs that were already started continue.

        Args:
            workflows: `BatchWorkflowInput`s; see `invoke` for the payload.
            session_id: groups runs for listing; at most 256 characters.
            user_id: the user that they are for, for listing; at most 256 characters.

        Returns:
            The handles of the runs in order, once all of them are stored.

        Raises:
            InvalidRequest: an entry is of another type, and nothing was started; or an argument
                is invalid.
            AgentNotFound: the service has no such agent or workflow.
            CallError: the service refused a start.
            ConnectionLost: the service could not be reached.

        """
        from polos_client.calls import batches  # noqa: PLC0415
        from polos_client.calls.start import warn_of_session  # noqa: PLC0415

        warn_of_session(session_id)
        return await batches.invoke_all(self, workflows, session_id, user_id)

    async def resume(
        self,
        suspend_workflow_id: str,
        suspend_execution_id: str,
        suspend_step_key: str | None = None,
        data: Any = None,
        *,
        wait_id: int | None = None,
        request_id: str | None = None,
    ) -> None:
        """Answer a wait of a run, which continues with the first answer that is accepted.

        An answer to a `suspend` may come before the run waits: it is kept until then. A run keeps
        at most 100 of these.

        Args:
            suspend_workflow_id: the agent or workflow that the run, or its child that waits,
                executes; empty: any.
            suspend_execution_id: the run.
            suspend_step_key: the wait's key; None: `wait_id` alone names it.
            data: the answer: JSON values or a model, at most 256 KiB as JSON. To an approval,
                `{"approved": True or False}`, and optionally `feedback` and `arguments`.
            wait_id: the wait's id, as `list_waits` and `_metadata` of its event have it; an
                approval needs it.
            request_id: makes the answer safe to repeat: the same id is the same answer; 1 to 128
                characters. None: a new one.

        Raises:
            AlreadyAnswered: another answer was accepted before.
            AmbiguousWait: several open waits have this key.
            InvalidRequest: an argument is invalid, the run does not execute
                `suspend_workflow_id`, or the wait does not accept the answer.
            RunNotFound: the run does not exist.
            TooManyCommands: the run has too many answers that it has not processed yet.
            WaitExpired: the wait has expired.
            WaitNotOpen: the run no longer waits for it, the key is that of a step, an approval is
                not open yet, or the run has ended.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        from polos_client.calls import waiting  # noqa: PLC0415

        await waiting.resume(
            self,
            suspend_execution_id,
            suspend_step_key,
            data,
            wait_id=wait_id,
            request_id=request_id,
            workflow_id=suspend_workflow_id,
        )

    def list_waits(
        self, *, workflow_id: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[Wait, None]:
        """Yield the open waits of the project that can be answered, oldest first.

        Args:
            workflow_id: only waits of runs of this agent or workflow.
            limit: the maximum number, from 0; None: all.

        Raises:
            InvalidRequest: an argument is invalid.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        from polos_client.calls import listing  # noqa: PLC0415

        return listing.waits(self, workflow_id, limit)

    async def get_execution(self, execution_id: str) -> dict[str, Any]:
        """Return the record of a run or a child as JSON values; a key without a value is None.

        Returns:
            `id`, `workflow_id`, `status` ("queued", "running", "waiting", "completed", "failed"
            or "cancelled"), `payload` (that of a workflow; of an agent `{"input": ...,
            "streaming": ...}`; None if the service does not show it), `result` (the AgentResult
            as a dict, or what the workflow returned; None unless completed), `error` (the message;
            None unless failed), `created_at`, `started_at`, `completed_at` and `cancelled_at`
            (ISO 8601 in UTC), `session_id`, `user_id`, `parent_execution_id`,
            `root_execution_id`, `step_key`, `output_schema_name`, `spent` (tokens that the run
            and its children have spent; None until it has ended) and `spent_cost` (US dollars;
            None if unknown). A run with an open wait that can be answered is "waiting". Always
            None, since the service does not return them: `run_timeout_seconds`, `retry_count`,
            `queue_name`, `concurrency_key`, `batch_id`, `deployment_id`, `assigned_to_worker`
            and `cancelled_by`.

        Raises:
            RunNotFound: the run does not exist.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        from polos_client.calls import record  # noqa: PLC0415

        return await record.execution(self, execution_id)

    async def get_input(self, run_id: str) -> Any:
        """Return what a run or a child was started with.

        Args:
            run_id: the run.

        Returns:
            For an agent, its input: a string, or a list of messages as dicts in the format of the
            OpenAI chat API. For a workflow, its payload as JSON values. None if there was none,
            or if the service does not show inputs, or not with these credentials.

        Raises:
            RunNotFound: the run does not exist.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        from polos_client.calls import record  # noqa: PLC0415

        return record.input_of(await self.get_run(run_id, include_input=True))

    async def get_tree(self, run_id: str) -> RunTree:
        """Return a run and the runs below it: their states, steps, waits and costs.

        Args:
            run_id: the root run, or a child for a part of the tree.

        Raises:
            RunNotFound: the run does not exist.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        request = rpc.GetRunRequest(run_id=checked_id(run_id), include_tree=True)
        return (await self.call(lambda channel: RunServiceStub(channel).GetRun, request)).tree

    async def cancel_execution(self, execution_id: str) -> bool:
        """Cancel a run, or a child with the runs below it; False if it had already ended otherwise.

        Raises:
            RunNotFound: the run does not exist.
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
        parent_id: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Run]:
        """Yield runs, the newest first; without their outcomes and tool results.

        `input.preview` of each is the beginning of its input, a line of at most 200 characters;
        `get_input` returns the whole input.

        Args:
            workflow_id: only runs of this agent or workflow.
            state: only runs in this state: "queued", "running", "waiting", "completed",
                "failed" or "cancelled".
            session_id: only runs of this session.
            user_id: only runs for this user.
            created_from: only runs created then or later; a time without a zone is in UTC.
            created_before: only runs created before; likewise.
            parent_id: only independent runs that steps of this run or of its children have started;
                see `ctx.step.invoke`.
            limit: the maximum number, from 0; None: all.

        Raises:
            InvalidRequest: an argument is invalid.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        from polos_client.calls import listing  # noqa: PLC0415

        request = listing.runs_request(
            workflow_id=workflow_id,
            state=state,
            session_id=session_id,
            user_id=user_id,
            created_from=created_from,
            created_before=created_before,
            parent_id=parent_id,
        )
        async for run in listing.runs(self, request, limit):
            yield run

    async def delete_run(self, run_id: str) -> None:
        """Remove an ended root run, with its log and its children.

        The client does not repeat the call: after a lost response the run would not be found.

        Raises:
            RunNotFound: the run does not exist.
            RunNotFinished: the run, or the run that started it, has not ended.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        request = rpc.DeleteRunRequest(run_id=checked_id(run_id))
        await self.call(lambda channel: RunServiceStub(channel).DeleteRun, request, again=False)

    async def run_token(self, run_id: str, seconds: float = 3600.0) -> str:
        """Return a token with which anyone can read one run, and nothing else.

        It is sent like an API key, for example `PolosClient(api_key=token)`.

        Args:
            run_id: the run.
            seconds: how long it is valid, from 1 to 86400; at most as long as the credential of
                this client.

        Raises:
            InvalidRequest: an argument is invalid.
            RunNotFound: the run does not exist.
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
            AgentNotFound: the agent is not loaded.
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
        from polos_client.calls import listing  # noqa: PLC0415

        return [agent async for agent in listing.agents(self)]

    async def list_workflows(self) -> list[WorkflowMessage]:
        """Return all workflows that the service has loaded, by id.

        Raises:
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        from polos_client.calls import listing  # noqa: PLC0415

        return [workflow async for workflow in listing.workflows(self)]
