"""The chaos harness for `polos serve --workers` with a nats-server of its own.

`plan` draws a round from a seed, and `round` plays it against the `system`: one command, and the
processes that it starts.
"""
