"""The client for code without an event loop: scripts, WSGI, Celery, threads."""

from polos_client.sync import SyncClient, SyncStream, iterate, wait

__all__ = ["SyncClient", "SyncStream", "iterate", "wait"]
