"""What tests of your own workflows and agents use."""

from polos_service.replay.course import ReplayDiffers, Replayed
from polos_service.replay.history import History, HistoryInvalid
from polos_service.replay.replay import replay
from polos_service.testing import Asked, Script, ScriptedPolos

__all__ = [
    "Asked",
    "History",
    "HistoryInvalid",
    "ReplayDiffers",
    "Replayed",
    "Script",
    "ScriptedPolos",
    "replay",
]
