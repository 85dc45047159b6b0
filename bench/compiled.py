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

ROOT: Final = Path(__file__).resolve().parent.parent
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
    print("compiling the SDK: a minute, once for each change of it", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="aegis-sdk-") as folder:
        try:
            built = subprocess.run(
                [
                    *(os.environ.get("UV", "uv"), "build", "--quiet", "--package", "aegis-sdk"),
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
            raise NotCompiledError(f"uv build needs a C compiler:\n{built.stderr[-2000:]}")
        shutil.rmtree(FOLDER, ignore_errors=True)
        unpacked = Path(folder) / "unpacked"
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extractall(unpacked)
        shutil.copytree(unpacked, target.with_suffix(".part"))
    target.with_suffix(".part").rename(target)


def use_compiled() -> bool:
    """Let all processes that are started from now on import it; False, with a word on stderr, when it can't be."""
    try:
        found = compiled_sdk()
    except NotCompiledError as error:
        print(f"the SDK is measured as plain Python: {error}", file=sys.stderr, flush=True)
        return False
    os.environ["PYTHONPATH"] = os.pathsep.join([str(found), *_given_paths()])
    return True


def python_path() -> str:
    """PYTHONPATH for a child that imports `bench`: what the caller gave comes first."""
    return os.pathsep.join([*_given_paths(), str(ROOT)])


def _given_paths() -> list[str]:
    return list(filter(None, [os.environ.get("PYTHONPATH")]))


if __name__ == "__main__":
    try:
        print(compiled_sdk())
    except NotCompiledError as error:
        sys.exit(str(error))
