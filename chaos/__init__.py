"""The chaos harness: kills the service and cuts its links on purpose, and checks every run.

    python -m chaos --trials 1000 --seed 1
    python -m chaos --seed 1 --only 17
    python -m chaos --seeded-bugs
    python -m chaos --cluster --trials 900 --seed 21

A round is a store, a service that dies several times at chosen places, and a few dozen runs
that stream all the while. With `--cluster` it is three NATS servers and three replicas of the
service, to which the same happens, and more. A trial is a run that met at least one fault.
What each run has to say is known beforehand; what its readers saw is compared with that, and
with what the store has.
"""
