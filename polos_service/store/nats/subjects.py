"""The names in NATS: streams, subjects, and how a value becomes one token of a subject.

Logs and records carry the day of the run's id, so that a list asks for a day at a time.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
import uuid

from polos_service.store import Parent

LOG = "POLOS_LOG"
"""The stream of the logs of all runs."""

WORK = "POLOS_WORK"
"""The stream of work items: a work queue."""

RUNS = "KV_POLOS_RUNS"
"""The bucket of records."""

REQUESTS = "KV_POLOS_REQUESTS"
"""The bucket of which run each request id, and each step that starts a run, has made."""

DEFINITIONS = "KV_POLOS_DEFINITIONS"
"""The bucket of definitions."""

COMMANDS = "KV_POLOS_COMMANDS"
"""The bucket of commands."""

ALARMS = "KV_POLOS_ALARMS"
"""The bucket of the times at which suspended runs are woken."""

EVERY_ALARM = "$KV.POLOS_ALARMS.>"
"""Where the values of that bucket are kept."""

WAITS = "KV_POLOS_WAITS"
"""The bucket of open waits."""

WATCHERS = "KV_POLOS_WATCHERS"
"""The bucket of root runs that wait for the end of others."""

ACCESS = "KV_POLOS_ACCESS"
"""The bucket of what access is decided by."""

EVERY_ENTRY = "$KV.POLOS_ACCESS.>"
"""Where the values of that bucket are kept."""

USAGE = "KV_POLOS_USAGE"
"""The bucket of what projects use."""

EVERY_USAGE = "$KV.POLOS_USAGE.>"
"""Where the values of that bucket are kept."""

EVERY_RUN = "$KV.POLOS_RUNS.>"
"""Where the records of all runs are kept."""

EVERY_ITEM = "polos.work.>"
"""Where all runs are queued."""

EVERY_CANCEL = "$KV.POLOS_COMMANDS.*.*"
"""Where it is kept that runs are cancelled."""

COMMANDED = "polos.inbox.>"
"""Where NATS publishes the heads of what was stored in inboxes; never what was refused."""

HELD = "polos.held"
"""Below it each replica tells the others how many runs it holds; nothing stores that."""

NO_DAY = "00000000"
"""The day of a run whose id does not contain its time."""

DEFAULT = "default"
"""The project whose items are queued as versions did that knew no other project."""

LINE = "+"
"""What stands before a workflow's token in the subjects of other projects' work items: no token of
a workflow begins so."""

LENGTH_LIMIT = 128
"""Bytes of the longest value that is not hashed."""

ESCAPE = "="
"""How a token begins that is a value in base 32."""

HASHED = "~"
"""How a token begins that is the SHA-256 of a value."""

PLAIN = re.compile(r"[A-Za-z0-9_-]+")
"""Values that are tokens as they are."""


def token(value: str) -> str:
    """Return the value as one token of a subject: no two values share one."""
    raw = value.encode(errors="surrogatepass")
    if len(raw) > LENGTH_LIMIT:
        return HASHED + hashlib.sha256(raw).hexdigest()
    if PLAIN.fullmatch(value):
        return value
    return ESCAPE + base64.b32encode(raw).decode().rstrip("=")


def value_of(part: str) -> str:
    """Return the value that a token stands for; a hashed one stands for itself.

    Raises:
        ValueError: no value has this token.

    """
    if not part.startswith(ESCAPE):
        return part
    code = part.removeprefix(ESCAPE)
    return base64.b32decode(code + "=" * (-len(code) % 8)).decode(errors="surrogatepass")


def day_of(run_id: str) -> str:
    """Return the day, YYYYMMDD in UTC, that a time-ordered run id was made on."""
    try:
        parsed = uuid.UUID(run_id)
    except ValueError:
        return NO_DAY
    if parsed.version != 7:  # noqa: PLR2004 - the version of UUID that begins with the time
        return NO_DAY
    return day((parsed.int >> 80) / 1000)


def day(seconds: float) -> str:
    """Return the day of a time in seconds since the epoch, YYYYMMDD in UTC."""
    return time.strftime("%Y%m%d", time.gmtime(seconds))


def log_subject(project: str, run_id: str) -> str:
    """Return where the frames of a run are stored."""
    return f"polos.log.{day_of(run_id)}.{token(project)}.{token(run_id)}"


def news_subject(subject: str) -> str:
    """Return where the heads of what was stored under a log's subject are published."""
    return "polos.new." + subject.removeprefix("polos.log.")


def work_subject(workflow_id: str, project: str, run_id: str) -> str:
    """Return where the work item of a run is queued."""
    subject = former_work_subject(workflow_id, project, run_id)
    return subject if project == DEFAULT else subject.replace("polos.work.", f"polos.work.{LINE}")


def former_work_subject(workflow_id: str, project: str, run_id: str) -> str:
    """Return where versions that knew no lines queue a run; see `lines`."""
    return f"polos.work.{token(workflow_id)}.{token(project)}.{token(run_id)}"


def run_subject(project: str, run_id: str) -> str:
    """Return where the record of a run is kept."""
    return f"{runs_of_day(project, day_of(run_id)).removesuffix('>')}{token(run_id)}"


def runs_of_day(project: str, day: str) -> str:
    """Return the subjects of the records of a project's runs that were made on a day."""
    return f"$KV.POLOS_RUNS.{day}.{token(project)}.>"


def definition_subject(project: str, run_id: str, piece: int) -> str:
    """Return where a piece of a run's definition is kept."""
    return f"$KV.POLOS_DEFINITIONS.{token(project)}.{token(run_id)}.{piece}"


def definition_subjects(project: str, run_id: str) -> str:
    """Return the subjects of all pieces of a run's definition."""
    return f"$KV.POLOS_DEFINITIONS.{token(project)}.{token(run_id)}.*"


def request_subject(project: str, request_id: str) -> str:
    """Return where it is kept which run a request id made."""
    digest = hashlib.sha256(request_id.encode(errors="surrogatepass")).hexdigest()
    return f"$KV.POLOS_REQUESTS.{token(project)}.{digest}"


def step_subject(project: str, parent: Parent) -> str:
    """Return where it is kept which run a step started: where no request id is kept."""
    step = f"{parent.run_id} {parent.step_key}".encode(errors="surrogatepass")
    return f"{steps_of(project, parent.root).removesuffix('*')}{hashlib.sha256(step).hexdigest()}"


def steps_of(project: str, root: str) -> str:
    """Return where it is kept which runs were started by the steps in the log of a root run."""
    return f"$KV.POLOS_REQUESTS.{token(project)}.{token(root)}.*"


def usage_subject(project: str, process: str) -> str:
    """Return where it is kept what a process has counted for a project; `*` for any process."""
    return f"$KV.POLOS_USAGE.{token(project)}.{process}"


def inbox_subject(project: str, run_id: str) -> str:
    """Return where it is kept that a run is cancelled."""
    return f"$KV.POLOS_COMMANDS.{token(project)}.{token(run_id)}"


def command_subject(project: str, run_id: str, command_id: str) -> str:
    """Return where any other command for a run is kept."""
    return f"{inbox_subject(project, run_id)}.{token(command_id)}"


def command_subjects(project: str, run_id: str) -> str:
    """Return the subjects of all other commands for a run."""
    return f"{inbox_subject(project, run_id)}.*"


def alarm_subject(project: str, run_id: str, epoch: int) -> str:
    """Return where it is kept when a run is woken that a claim has suspended."""
    return f"{alarms_of(project, run_id).removesuffix('*')}{epoch}"


def alarms_of(project: str, run_id: str) -> str:
    """Return the subjects of all alarms of a run."""
    return f"$KV.POLOS_ALARMS.{token(project)}.{token(run_id)}.*"


def wait_subject(project: str, run_id: str, wait_id: int, create_time: int) -> str:
    """Return where an open wait is kept."""
    return f"{wait_at_any_time(project, run_id, wait_id).removesuffix('*')}{create_time}"


def wait_at_any_time(project: str, run_id: str, wait_id: int) -> str:
    """Return the subject of an open wait, whenever it began."""
    return f"{waits_of(project, run_id).removesuffix('>')}{wait_id}.*"


def waits_of(project: str, run_id: str) -> str:
    """Return the subjects of all open waits of a run."""
    return f"{waits_of_project(project).removesuffix('>')}{token(run_id)}.>"


def waits_of_project(project: str) -> str:
    """Return the subjects of all open waits of a project."""
    return f"$KV.POLOS_WAITS.{token(project)}.>"


def watcher_subject(project: str, run_id: str, root: str) -> str:
    """Return where it is kept that a root run waits for the end of a run."""
    return f"{watchers_of(project, run_id).removesuffix('*')}{token(root)}"


def watchers_of(project: str, run_id: str) -> str:
    """Return the subjects of all who wait for the end of a run."""
    return f"$KV.POLOS_WATCHERS.{token(project)}.{token(run_id)}.*"


def inbox_of(published: str) -> str:
    """Return the subject of the inbox that a message below COMMANDED tells of."""
    return "$KV.POLOS_COMMANDS." + ".".join(published.split(".")[2:4])
