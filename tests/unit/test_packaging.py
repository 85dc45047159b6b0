"""What the packages say of themselves, and what each finds of the others."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from aegis_sdk.nats import library

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "packages"
KINDS = ("*.md", "docs/**/*.md", "packages/**/*.md", "packages/*/src/**/*.py", "Dockerfile")
INSTALLS = re.compile(r"(pip|uv) (install|add)\b").search


def project(name: str) -> Any:
    return tomllib.loads((PACKAGES / name / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("package", "asked"),
    [
        ("aegis-control", {"aegis-sdk"}),
        ("aegis-demo", {"aegis-sdk", "aegis-control[embedded]"}),
    ],
)
def test_each_asks_for_the_others_of_its_own_version(package: str, asked: set[str]) -> None:
    """Any other one could be a stranger's, who has the name on the public index: that takes no local versions."""
    version = project(package)["version"]
    assert "+" in version
    assert project("aegis-sdk")["version"] == version
    ours = {one for one in project(package)["dependencies"] if one.startswith("aegis-")}
    assert ours == {f"{name}=={version}" for name in asked}


def test_each_line_that_installs_ours_names_a_file_or_the_whole_version() -> None:
    """In documents, and in messages."""
    version = project("aegis-sdk")["version"]
    files = [path for kind in KINDS for path in ROOT.glob(kind) if "CHANGELOG" not in path.name]
    lines = [
        (path, line) for path in files for line in path.read_text().splitlines() if INSTALLS(line)
    ]
    assert len(lines) > 5
    for path, line in lines:
        asked = re.split(r"(?:pip|uv) (?:install|add)", line, maxsplit=1)[1]
        for word in re.findall(r"\S*aegis[-_](?:sdk|control|demo)\S*", asked):
            ours = ".whl" in word or ".tar.gz" in word or word.rstrip("`").endswith(f"=={version}")
            assert ours or "stranger" in line, (path, line)


def test_the_lowest_nats_py_is_the_one_that_the_import_takes() -> None:
    least, below = (".".join(map(str, bound)) for bound in (library.LEAST, library.BELOW))
    assert f"nats-py>={least},<{below}" in project("aegis-sdk")["dependencies"]


@pytest.mark.parametrize(
    "version", ["2.14.0", "2.1.9", "3.0.0", f"{library.BELOW[0]}.{library.BELOW[1]}"]
)
def test_another_nats_py_is_refused_with_what_to_install(version: str) -> None:
    with pytest.raises(
        ImportError, match=rf"nats-py {version} is installed.*pip install 'nats-py>="
    ):
        library.check(version)


@pytest.mark.parametrize("version", ["2.15.0", "2.16.3rc1", "main"])
def test_one_that_was_tried_or_that_somebody_built_is_taken(version: str) -> None:
    library.check(version)
