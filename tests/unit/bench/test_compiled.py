"""Which form of the SDK is measured: the compiled one, built once for each change, or plain Python with a word why."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench import compiled


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of one file, in place of the SDK."""
    package = tmp_path / "package"
    (package / "src").mkdir(parents=True)
    (package / "pyproject.toml").write_text("")
    (package / "src" / "it.py").write_text("1")
    monkeypatch.setattr(compiled, "PACKAGE", package)
    monkeypatch.setattr(compiled, "FOLDER", tmp_path / "built")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return package


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was built; each build makes its folder."""
    builds: list[Path] = []

    def build(target: Path) -> None:
        target.mkdir(parents=True)
        builds.append(target)

    monkeypatch.setattr(compiled, "_build", build)
    return builds


def test_it_is_built_once_for_each_change(package: Path, builds: list[Path]) -> None:
    first = compiled.compiled_sdk()
    assert compiled.compiled_sdk() == first
    assert builds == [first]

    (package / "src" / "it.py").write_text("2")
    assert compiled.compiled_sdk() != first
    (package / "src" / "new.py").write_text("")
    (package / "pyproject.toml").write_text("[other]")
    compiled.compiled_sdk()
    assert len(set(builds)) == 3


def test_children_import_it_before_all_else(
    package: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/given")
    assert compiled.use_compiled()
    assert compiled.python_path().split(os.pathsep) == [
        str(builds[0]),
        "/given",
        str(compiled.ROOT),
    ]


def test_without_a_compiler_plain_python_is_measured_and_it_is_said(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "error: command 'gcc' failed")

    monkeypatch.setattr(subprocess, "run", fail)
    assert not compiled.use_compiled()
    assert "plain Python: uv build needs a C compiler" in (said := capsys.readouterr().err)
    assert "'gcc' failed" in said
    assert "PYTHONPATH" not in os.environ
    assert not compiled.FOLDER.exists(), "a failed build leaves nothing that looks like one"


def test_without_uv_plain_python_is_measured_and_it_is_said(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UV", "/nowhere/uv")
    assert not compiled.use_compiled()
    assert "uv is needed" in capsys.readouterr().err
