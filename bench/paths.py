"""Where the repository is, and what a child process imports from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent


def python_path(*first: Path) -> str:
    """PYTHONPATH for a child that imports `bench`: `first`, then what the caller gave, then the repository."""
    given = filter(None, [os.environ.get("PYTHONPATH")])
    return os.pathsep.join([*map(str, first), *given, str(ROOT)])
