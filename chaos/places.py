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
    TAKEOVER = "takeover"


WHAT: dict[Place, str] = {
    Place.START: "killed in a start, before its commit",
    Place.START_ACK: "killed after a start was committed, before it was answered",
    Place.MID_DELTA: "killed as a model's token is about to be queued",
    Place.COMMIT: "killed inside a transaction, before COMMIT",
    Place.APPEND_ACK: "killed between a commit and its acknowledgement",
    Place.BEFORE_TOOL: "killed when a tool's start is on disk, before it is called",
    Place.MID_TOOL: "killed inside a tool, after its effect",
    Place.AFTER_TOOL: "killed when a tool has returned, before that is recorded",
    Place.STEP_END: "killed when a step's end is on disk, before the run goes on",
    Place.TERMINAL: "killed before the terminal event is appended",
    Place.TERMINAL_ACK: "killed when the terminal event is on disk, before any reader knows",
    Place.OPEN: "killed during recovery, as the store is opened",
    Place.CLAIM: "killed when a run's new claim is on disk, before its log is folded",
    Place.FOLD: "killed during recovery, when a run's log was folded",
    Place.STOLEN: "the claim passes to another holder while the former goes on",
    Place.MUTE: "standard error cannot be written, from the start on",
    Place.KILL: "killed from outside, at any time",
    Place.RESTART: "asked to stop (SIGTERM), and started again",
    Place.LINK_END: "connections closed",
    Place.LINK_RESET: "connections reset",
    Place.LINK_INSIDE: "connections closed after so many bytes, inside a message",
    Place.LINK_STALL: "connections silent for a while, then reset",
    Place.CURSOR: "a reader leaves and comes back with a cursor inside a frame",
    Place.SERVICE_KILL: "a replica of the service is killed, and started again",
    Place.SERVICE_RESTART: "a replica of the service is asked to stop, and started again",
    Place.SERVICE_PAUSE: "a replica of the service is stopped beyond its claims, and goes on",
    Place.SERVICE_PART: "a replica of the service does not reach NATS beyond its claims",
    Place.NODE_KILL: "a NATS server that follows is killed, and started again",
    Place.NODE_PAUSE: "a NATS server that follows is stopped, and goes on",
    Place.LEADER_KILL: "the NATS server that leads the log is killed, and started again",
    Place.LEADER_PAUSE: "the NATS server that leads the log is stopped, and goes on",
    Place.STRANGER: "somebody else publishes under the service's subjects in NATS",
    Place.TAKEOVER: "a run passes to another claim",
}
"""What happens at each place."""

INSIDE = tuple(Place)[: tuple(Place).index(Place.STOLEN)]
"""The places inside the service's process: it kills itself there."""

RECOVERY = (Place.OPEN, Place.CLAIM, Place.FOLD)
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
