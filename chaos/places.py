"""Where faults strike."""

from __future__ import annotations

from enum import StrEnum


class Place(StrEnum):
    """A place at which a fault strikes; its value names it on the command line and in reports."""

    START = "start"
    START_ACK = "start-ack"
    MID_DELTA = "mid-delta"
    COMMIT = "commit"
    APPEND_ACK = "append-ack"
    BEFORE_TOOL = "before-tool"
    MID_TOOL = "mid-tool"
    AFTER_TOOL = "after-tool"
    STEP_END = "step-end"
    TERMINAL = "terminal"
    TERMINAL_ACK = "terminal-ack"
    OPEN = "open"
    CLAIM = "claim"
    FOLD = "fold"
    ASKED = "asked"
    PARK = "park"
    PARKED = "parked"
    REPLY = "reply"
    ANSWERED = "answered"
    WOKEN = "woken"
    TIMER = "timer"
    EXPIRED = "expired"
    RESUMED = "resumed"
    DECIDED = "decided"
    CHILD = "child"
    CHILD_END = "child-end"
    ENTRY = "entry"
    CHILD_PARK = "child-park"
    CHILD_AGAIN = "child-again"
    INVOKED = "invoked"
    AWAITED = "awaited"
    STOLEN = "stolen-claim"
    MUTE = "mute"
    KILL = "kill"
    RESTART = "restart"
    LINK_END = "link-end"
    LINK_RESET = "link-reset"
    LINK_INSIDE = "link-inside"
    LINK_STALL = "link-stall"
    CURSOR = "cursor-in-frame"
    SERVICE_KILL = "service-kill"
    SERVICE_RESTART = "service-restart"
    SERVICE_PAUSE = "service-pause"
    SERVICE_PART = "service-part"
    NODE_KILL = "node-kill"
    NODE_PAUSE = "node-pause"
    LEADER_KILL = "leader-kill"
    LEADER_PAUSE = "leader-pause"
    STRANGER = "stranger"
    WORKER_KILL = "worker-kill"
    WORKER_PAUSE = "worker-pause"
    WORKERS_RENEW = "workers-renew"
    STORE_KILL = "store-kill"
    STORE_PAUSE = "store-pause"
    SUPERVISOR_KILL = "supervisor-kill"
    SUPERVISOR_RESTART = "supervisor-restart"
    TAKEOVER = "takeover"


WHAT: dict[Place, str] = {
    Place.START: "killed during a start, before its commit",
    Place.START_ACK: "killed after a start was committed, before the response",
    Place.MID_DELTA: "killed just before a model's token is queued",
    Place.COMMIT: "killed inside a transaction, before COMMIT",
    Place.APPEND_ACK: "killed between a commit and its acknowledgement",
    Place.BEFORE_TOOL: "killed after a tool's start is stored, before the call",
    Place.MID_TOOL: "killed inside a tool, after its effect",
    Place.AFTER_TOOL: "killed after a tool has returned, before that is recorded",
    Place.STEP_END: "killed after a step's end is stored, before the run continues",
    Place.TERMINAL: "killed before the terminal event is appended",
    Place.TERMINAL_ACK: "killed after the terminal event is stored, before any reader knows",
    Place.OPEN: "killed during recovery, while the store is opened",
    Place.CLAIM: "killed after a run's new claim is stored, before its log is folded",
    Place.FOLD: "killed during recovery, after a run's log was folded",
    Place.ASKED: "killed after a question is listed as open, before its event is stored",
    Place.PARK: "killed while a run is parked: its code has stopped, and it is not suspended yet",
    Place.PARKED: "killed right after a run was suspended",
    Place.REPLY: "killed after an answer is validated, before it is stored",
    Place.ANSWERED: "killed after an answer is stored, before its caller or the run knows",
    Place.WOKEN: "killed after a run that waits was claimed, before its code begins",
    Place.TIMER: "killed at a timer's time, before its end is stored",
    Place.EXPIRED: "killed when a question has expired, before that is stored",
    Place.RESUMED: "killed after the end of a wait is stored, before the run continues",
    Place.DECIDED: "killed after a person has decided about a call, before the tool's step begins",
    Place.CHILD: "killed after a child's start is stored, before its code begins",
    Place.CHILD_END: "killed after a child's end is stored, before its parent's step ends",
    Place.ENTRY: "killed after an entry of a batch has ended, before its parent continues",
    Place.CHILD_PARK: "killed while a run is parked in whose children something waits",
    Place.CHILD_AGAIN: "killed during recovery, after a child of the log continues",
    Place.INVOKED: "killed after a run is stored that a step starts, before the step ends",
    Place.AWAITED: "killed when the end of an awaited run is read, before the wait ends",
    Place.STOLEN: "another holder takes the claim while the old one continues",
    Place.MUTE: "standard error cannot be written from the start",
    Place.KILL: "killed from outside, at any time",
    Place.RESTART: "asked to stop (SIGTERM) and restarted",
    Place.LINK_END: "connections closed",
    Place.LINK_RESET: "connections reset",
    Place.LINK_INSIDE: "connections closed after some bytes, inside a message",
    Place.LINK_STALL: "connections silent for a while, then reset",
    Place.CURSOR: "a reader reconnects with a cursor inside a frame",
    Place.SERVICE_KILL: "a replica of the service is killed and restarted",
    Place.SERVICE_RESTART: "a replica of the service is asked to stop and restarted",
    Place.SERVICE_PAUSE: "a replica of the service is paused for longer than its claims last",
    Place.SERVICE_PART: "a replica of the service loses NATS for longer than its claims last",
    Place.NODE_KILL: "a NATS follower is killed and restarted",
    Place.NODE_PAUSE: "a NATS follower is paused and continued",
    Place.LEADER_KILL: "the NATS leader of the log is killed and restarted",
    Place.LEADER_PAUSE: "the NATS leader of the log is paused and continued",
    Place.STRANGER: "another program publishes under the service's subjects in NATS",
    Place.WORKER_KILL: "a worker is killed",
    Place.WORKER_PAUSE: "a worker is paused for longer than its claims last",
    Place.WORKERS_RENEW: "all workers are replaced, one by one (SIGHUP)",
    Place.STORE_KILL: "the workers' nats-server is killed",
    Place.STORE_PAUSE: "the workers' nats-server is paused and continued",
    Place.SUPERVISOR_KILL: "the supervisor is killed, and another one started",
    Place.SUPERVISOR_RESTART: "the supervisor is asked to stop, and another one started",
    Place.TAKEOVER: "another process claims a run",
}
"""What happens at each place."""

INSIDE = tuple(Place)[: tuple(Place).index(Place.STOLEN)]
"""The places inside the service's process: it kills itself there."""

RECOVERY = (Place.OPEN, Place.CLAIM, Place.FOLD, Place.CHILD_AGAIN)
"""Those that a process without runs to recover never reaches."""

OUTSIDE = (Place.KILL, Place.RESTART)
"""What is done to the process from outside."""

LINKS = (Place.LINK_END, Place.LINK_RESET, Place.LINK_INSIDE, Place.LINK_STALL)
"""What is done to the links between readers and service."""

ONE_PROCESS = tuple(Place)[: tuple(Place).index(Place.SERVICE_KILL)]
"""What a service with a file meets."""

SERVICES = (Place.SERVICE_KILL, Place.SERVICE_RESTART, Place.SERVICE_PAUSE, Place.SERVICE_PART)
"""What is done to a replica of the service, or to its links to NATS."""

LEADERS = (Place.LEADER_KILL, Place.LEADER_PAUSE)
"""What is done to the NATS server that leads the log's stream."""

BLOWS = (*SERVICES, Place.NODE_KILL, Place.NODE_PAUSE, *LEADERS, Place.STRANGER)
"""What is done to a cluster from outside."""

REPLICA = tuple(one for one in INSIDE if one not in {Place.COMMIT, Place.OPEN, Place.FOLD})
"""The places inside a replica's process: it kills itself there."""

CLUSTER = (*REPLICA, *BLOWS, Place.TAKEOVER, *LINKS, Place.CURSOR)
"""What a cluster of services on NATS meets."""

TO_WORKERS = (
    *(Place.WORKER_KILL, Place.STORE_KILL, Place.WORKER_PAUSE),
    *(Place.WORKERS_RENEW, Place.STORE_PAUSE),
    *(Place.WORKER_KILL, Place.STORE_KILL),
    *(Place.SUPERVISOR_KILL, Place.WORKER_KILL, Place.SUPERVISOR_RESTART),
)
"""What is done to `polos serve --workers` from outside: workers and store die most often."""

WORKERS = (*dict.fromkeys(TO_WORKERS), Place.TAKEOVER, *LINKS, Place.CURSOR)
"""What workers on a nats-server of their own meet."""
