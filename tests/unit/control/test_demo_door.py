"""`aegis-control demo`, where the demo is installed and where it is not."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest
from aegis_control.entrypoints import service


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python's import has it where there is no such package."""
    for name in [*filter(lambda name: name.startswith("aegis_demo."), sys.modules), "aegis_demo"]:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("missing")
@pytest.mark.parametrize("arguments", [[], ["--help"], ["--orders", "5", "--json"]])
def test_where_it_is_missing_one_line_says_what_to_install(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert service.run(["demo", *arguments]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    [line] = said.err.splitlines()
    assert line.startswith("aegis-control: the demo is not installed; install the package ")
    assert f" aegis-demo=={metadata.version('aegis-demo')} " in line


@pytest.mark.usefixtures("missing")
def test_the_help_says_that_it_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        service.run(["--help"])
    assert "needs the package aegis-demo" in " ".join(capsys.readouterr().out.split())


def test_where_it_is_installed_it_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert service.run(["demo", "--orders", "none"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("aegis-control demo: ")
    assert line.endswith("; see `aegis-control demo --help`")


def test_control_starts_without_it_also_where_it_is_installed() -> None:
    script = """
import atexit, sys
from aegis_control.entrypoints.service import main
atexit.register(lambda: print([name for name in sys.modules if "aegis_demo" in name]))
main(["--help"])
"""
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout.endswith("[]\n")
    assert "aegis-demo" not in said.stdout
