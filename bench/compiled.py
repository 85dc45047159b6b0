"""The SDK as its released wheels have it: the path of a request compiled (docs/adr/0017).

`python -m bench.compiled` builds it, once for each change of it, and prints the folder that PYTHONPATH wants:

    PYTHONPATH=$(python -m bench.compiled) python -m pytest tests/contract
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from bench.paths import ROOT, python_path

PACKAGE: Final = ROOT / "packages" / "aegis-sdk"
FOLDER: Final = ROOT / "build" / "aegis-sdk"


class NotCompiledError(Exception):
    """No wheel could be built; the message says why, and what to do."""


def compiled_sdk() -> Path:
    """A folder with the compiled package. Raises: NotCompiledError."""
    target = FOLDER / _digest()
    if not target.exists():
        _build(target)
    return target


def _digest() -> str:
    """Of all that the wheel is made from, and of the Python that it is made for."""
    digest = hashlib.blake2b(sys.version.encode(), digest_size=8)
    for path in sorted([PACKAGE / "pyproject.toml", *PACKAGE.glob("src/**/*.py")]):
        digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    return digest.hexdigest()


def _build(target: Path) -> None:
    print(
        "compiling the SDK: some minutes, once for each change of it", file=sys.stderr, flush=True
    )
    with tempfile.TemporaryDirectory(prefix="aegis-sdk-") as folder:
        try:
            built = subprocess.run(
                [
                    *(os.environ.get("UV", "uv"), "build", "--package", "aegis-sdk"),
                    *("--python", sys.executable, "--out-dir", folder),
                ],
                env=os.environ | {"HATCH_BUILD_HOOKS_ENABLE": "1"},
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise NotCompiledError(f"uv is needed: {error}") from error
        if built.returncode:
            raise NotCompiledError(_why(built.stderr))
        shutil.rmtree(FOLDER, ignore_errors=True)
        unpacked = Path(folder) / "unpacked"
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extractall(unpacked)
        if not any(path.suffix in (".so", ".pyd") for path in unpacked.rglob("*")):
            raise NotCompiledError("the wheel has nothing compiled in it: see its build hook")
        shutil.copytree(unpacked, target.with_suffix(".part"))
    target.with_suffix(".part").rename(target)


def _why(stderr: str) -> str:
    """One line: the first error that the build told, and what it needs."""
    told = [line.strip() for line in stderr.splitlines() if "error: " in line]
    return f"uv build failed; it needs a C compiler and the package index: {' '.join(told[:1])}"


def use_compiled() -> bool:
    """Let all processes that are started from now on import it; False, with a word on stderr, when it can't be."""
    try:
        found = compiled_sdk()
    except NotCompiledError as error:
        print(f"the SDK is measured as plain Python: {error}", file=sys.stderr, flush=True)
        return False
    os.environ["PYTHONPATH"] = python_path(found)
    return True


if __name__ == "__main__":
    try:
        print(compiled_sdk())
    except NotCompiledError as error:
        sys.exit(str(error))
