"""Durable execution: a run is its log, a step is the only durable thing in it."""
