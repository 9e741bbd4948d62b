"""`python -m bench.compare`: two revisions' checkouts, and what is made of their figures.

`tests/peers/test_bench.py` measures two services.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.compare import Comparison, checked_out, commit_of
from bench.processes import ROOT
from bench.revision import PACKAGES

CLI = """
import sys
import polos, polos_client, polos.v1
from pathlib import Path
def main():
    import polos_client.late  # when the command runs, as the product does it
    for module in (polos, polos.v1, polos_client, polos_client.late):
        print(module.__file__)
    print(*sys.argv[1:])
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose command tells where the packages come from."""
    for name in (*PACKAGES[1:], "generated/polos", "generated/polos/v1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "polos_client" / "late.py").touch()
    (tmp_path / "polos_service" / "cli.py").write_text(CLI)
    return tmp_path


def polos_of(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.revision", str(checkout), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_of_a_checkout_imports_that_checkout(checkout: Path) -> None:
    done = polos_of(checkout, "serve", "app.py")
    assert done.returncode == 0, done.stderr
    *files, arguments = done.stdout.splitlines()
    assert len(files) == 4
    assert all(Path(file).is_relative_to(checkout) for file in files), files
    assert arguments == "serve app.py"


def test_public_names_written_by_hand_come_from_the_checkout_too(checkout: Path) -> None:
    (checkout / "polos").mkdir()
    extend = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)"
    (checkout / "polos" / "__init__.py").write_text(extend)
    done = polos_of(checkout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(checkout / "polos" / "__init__.py"))


def test_a_package_that_a_checkout_lacks_is_not_taken_from_the_working_tree(checkout: Path) -> None:
    (checkout / "polos_client").rename(checkout / "elsewhere")
    done = polos_of(checkout)
    assert done.returncode == 1
    assert "No module named 'polos_client'" in done.stderr


def test_a_package_that_reaches_out_of_its_checkout_is_refused(checkout: Path) -> None:
    outside = ROOT / "polos_client"
    (checkout / "polos_client" / "__init__.py").write_text(f"__path__.append({str(outside)!r})")
    done = polos_of(checkout)
    assert done.returncode == 1
    assert f"polos_client is imported from {outside}, not from {checkout}" in done.stderr


def test_a_commit_is_checked_out_for_as_long_as_it_is_needed() -> None:
    with checked_out(commit_of("HEAD")) as folder:
        assert (folder / "polos_service" / "cli" / "__init__.py").is_file()
    assert not folder.exists()


def test_a_machine_that_gets_slower_does_not_change_the_ratio() -> None:
    found = Comparison(old=[1, 2, 4], new=[1.01, 2.02, 4.04])
    assert found.ratio == pytest.approx(1.01)
    assert found.spread == pytest.approx((1.01, 1.01))
    assert not found.dearer


@pytest.mark.parametrize(("new", "dearer"), [(0.9, False), (1.02, False), (1.04, True)])
def test_three_percent_more_is_too_much(new: float, dearer: bool) -> None:  # noqa: FBT001
    assert Comparison(old=[1.0, 1.0], new=[new, new]).dearer is dearer


def test_the_spread_holds_the_ratio() -> None:
    found = Comparison(old=[1.0] * 5, new=[1.0, 1.02, 1.04, 1.06, 1.5])
    low, high = found.spread
    assert 1.0 <= low < found.ratio == 1.04 < high <= 1.5
