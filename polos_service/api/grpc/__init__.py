"""The gRPC face of the service."""

PROJECT = "default"
"""The project of every call, as long as there are no credentials that name another."""
