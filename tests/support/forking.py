"""A program that forks: `python -m tests.support.forking ADDRESS BEFORE CLIENT WAY`.

BEFORE says what the parent does with its client: `nothing`, `call` or `close`. CLIENT says whose
client the child uses, `same` or `new`. WAY is `fork` (and the interpreter ends the child) or
`multiprocessing`. Each prints a line that says how its call went.
"""
# ruff: noqa: T201 - it prints what happened

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys

from polos import DefinitionError, PolosClient
from tests.support.fake_service import RUN


async def ask(client: PolosClient, *, close: bool = False) -> str:
    run = await client.get_run(RUN)
    if close:
        await client.close()
    return run.run_id


def child(client: PolosClient) -> None:
    try:
        print("child", asyncio.run(ask(client)), flush=True)
    except DefinitionError as error:
        print("child", error, flush=True)


def main(address: str, before: str, whose: str, way: str) -> None:
    client = PolosClient(address)
    if before != "nothing":
        print("parent", asyncio.run(ask(client, close=before == "close")), flush=True)

    def work() -> None:
        child(client if whose == "same" else PolosClient(address))

    if way == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        code = process.exitcode
    elif (pid := os.fork()) == 0:
        work()
        sys.exit()
    else:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print("child ended with", code, flush=True)
    print("parent", asyncio.run(ask(client)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
