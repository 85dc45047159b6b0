"""Which versions of nats-py this version of the SDK was tried with: it uses parts of it that are not public (docs/adr/0008).

Looked at when the connection is imported, since a version that a lock or another package chose would fail later and darkly.
The bounds are those of the package's dependencies; tests/contract passes with the lowest and with the newest.
"""

from __future__ import annotations

from importlib import metadata
from typing import Final

LEAST: Final = (2, 15)
BELOW: Final = (2, 17)


def check(version: str) -> None:
    """Raises: ImportError, which says what to install."""
    parts = version.split(".")
    try:
        found = int(parts[0]), int(parts[1])
    except (ValueError, IndexError):
        return  # of a fork or of a checkout: who installs that knows why
    if not LEAST <= found < BELOW:
        wanted = f"nats-py>={_text(LEAST)},<{_text(BELOW)}"
        raise ImportError(
            f"nats-py {version} is installed, and this aegis-sdk was tried with {wanted}: pip install '{wanted}'"
        )


def check_installed() -> None:
    """Raises: ImportError."""
    try:
        version = metadata.version("nats-py")
    except metadata.PackageNotFoundError:
        return  # it came without its metadata, as into a frozen program
    check(version)


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
