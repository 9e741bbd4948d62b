"""Where programs for the original SDK find `CompactionConfig`, which is not built yet."""

from typing import TYPE_CHECKING

from polos_client.unbuilt import not_built_yet

if not TYPE_CHECKING:  # checkers refuse what is not built
    __getattr__ = not_built_yet(__name__, ("CompactionConfig",))
