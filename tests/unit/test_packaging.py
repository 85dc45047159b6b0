"""What both packages say of themselves."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

PACKAGES = Path(__file__).resolve().parents[2] / "packages"


def project(name: str) -> Any:
    return tomllib.loads((PACKAGES / name / "pyproject.toml").read_text())["project"]


def test_control_asks_for_the_sdk_of_its_own_version() -> None:
    """Any other one could be a stranger's, who has the name on the public index."""
    version = project("aegis-control")["version"]
    assert project("aegis-sdk")["version"] == version
    assert f"aegis-sdk=={version}" in project("aegis-control")["dependencies"]
