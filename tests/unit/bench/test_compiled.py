"""Which form of the SDK is measured: the compiled one, built once for each change, or plain Python with a word why."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bench import compiled
from bench.paths import ROOT


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

    for changed in ("src/it.py", "src/new.py", "pyproject.toml"):
        (package / changed).write_text("2")
        built = compiled.compiled_sdk()
        assert built == builds[-1], changed
    assert len(set(builds)) == 4


def test_children_import_it_before_all_else(
    package: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/given")
    assert compiled.use_compiled()
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(builds[0]), "/given", str(ROOT)]


def test_without_a_compiler_plain_python_is_measured_and_it_is_said(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        told = "building\nerror: command 'gcc' failed\nerror: Failed to build\n"
        return subprocess.CompletedProcess(command, 1, "", told)

    monkeypatch.setattr(subprocess, "run", fail)
    assert not compiled.use_compiled()
    [_, said] = capsys.readouterr().err.splitlines()  # one line, after that it compiles
    assert "plain Python: uv build failed; it needs a C compiler" in said
    assert said.endswith("error: command 'gcc' failed")
    assert "PYTHONPATH" not in os.environ
    assert not compiled.FOLDER.exists(), "a failed build leaves nothing that looks like one"


def test_a_wheel_without_anything_compiled_is_not_taken_for_one(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_plain(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        with zipfile.ZipFile(Path(command[-1]) / "it.whl", "w") as wheel:
            wheel.writestr("it.py", "1")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", build_plain)
    with pytest.raises(compiled.NotCompiledError, match="nothing compiled"):
        compiled.compiled_sdk()
    assert not compiled.FOLDER.exists()


def test_without_uv_plain_python_is_measured_and_it_is_said(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UV", "/nowhere/uv")
    assert not compiled.use_compiled()
    assert "uv is needed" in capsys.readouterr().err
