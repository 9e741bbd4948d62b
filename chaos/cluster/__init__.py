"""The chaos harness for replicas of the service on a cluster of NATS servers.

`plan` draws a round from a seed, `round` plays it against the `system`, which is made of `nodes`
and replicas, and `logs` reads what NATS has in the end. `faults` and `bugs` are planted into the
replicas; `stranger` publishes beside them.
"""
