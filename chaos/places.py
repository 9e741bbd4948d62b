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
    KILL = "kill"
    RESTART = "restart"
    LINK_END = "link-end"
    LINK_RESET = "link-reset"
    LINK_INSIDE = "link-inside"
    LINK_STALL = "link-stall"
    CURSOR = "cursor-in-frame"


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
    Place.CLAIM: "killed during recovery, when a run's new claim is on disk",
    Place.FOLD: "killed during recovery, when a run's log was folded",
    Place.STOLEN: "the claim passes to another holder while the former goes on",
    Place.KILL: "killed from outside, at any time",
    Place.RESTART: "asked to stop (SIGTERM), and started again",
    Place.LINK_END: "connections closed",
    Place.LINK_RESET: "connections reset",
    Place.LINK_INSIDE: "connections closed after so many bytes, inside a message",
    Place.LINK_STALL: "connections silent for a while, then reset",
    Place.CURSOR: "a reader leaves and comes back with a cursor inside a frame",
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
