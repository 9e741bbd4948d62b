"""The page that is searched for error texts has texts that exist."""

from __future__ import annotations

import ast
import re

from polos.v1.error_pb2 import FailureReason
from polos_client import errors
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "guides" / "troubleshooting.md").read_text()
PACKAGES = ("polos", "polos_client", "polos_service")


def texts() -> str:
    """Return every string of the code, one per line."""
    trees = [
        ast.parse(path.read_text())
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    ]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return "\n".join(
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def test_every_message_is_one_of_the_code() -> None:
    rows = re.findall(r"^\| (`.+?) \| ", PAGE, re.MULTILINE)
    named = [text for row in rows for text in re.findall(r"`(.+?)`", row)]
    assert len(named) > 40
    names = FailureReason.DESCRIPTOR.values_by_name
    reasons = {name.removeprefix("FAILURE_REASON_").lower() for name in names}
    code = texts()
    known = [one for one in named if one in reasons or hasattr(errors, one) or one in code]
    assert named == known, set(named) - set(known)
