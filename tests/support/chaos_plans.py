"""Plans of runs for tests of the chaos harness."""

from __future__ import annotations

from chaos.work import RunPlan, Work


def undisturbed(work: Work) -> RunPlan:
    """Return the plan of a run that is started immediately and not cancelled, with one reader."""
    return RunPlan(
        name=work.name,
        turns=work.turns,
        moves=work.moves,
        questions=work.questions,
        falls=work.falls,
        life=0,
        delay=0,
        client=0,
        cancel=None,
        hops=(),
        chunks=False,
    )
