"""Replay: runs code against the log of a run, without side effects, and tells where they differ."""
