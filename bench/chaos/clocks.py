"""Wall clocks that can be set wrong, one a process, by libfaketime (Debian: `libfaketime`).

The monotonic clock stays true: no correct machine's goes back, and every timer runs by it. A clock
belongs to a name, not to a run: what is killed on a machine with a wrong clock starts with it again.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
JUMPS_S = (-3600.0, -5.0, 5.0, 3600.0)
"""An hour is a wrong time zone; seconds are a clock that was stepped instead of slewed."""


class NoLibrary(Exception):
    """Clocks can't be set here; the message says what to install."""


class Clocks:
    """The clocks of a system's processes, kept as files in `folder`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._source = Random(f"{seed}/clocks")
        folder.mkdir()

    def environment(self, name: str) -> dict[str, str]:
        """What makes a process read the clock `name`. Raises: NoLibrary."""
        if LIBRARY is None:
            raise NoLibrary("clocks can't be set: apt-get install libfaketime")
        if not self._file(name).exists():
            self.set(name, 0.0)
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(name)),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Python compares its sources' times with those in its cache.
            "NO_FAKE_STAT": "1",
        }

    def jump(self, name: str) -> float:
        """Set the clock wrong, and return by how much."""
        jump_s = self._source.choice(JUMPS_S)
        self.set(name, jump_s)
        return jump_s

    def set(self, name: str, offset_s: float) -> None:
        """`offset_s` ahead of the true time; processes that run follow at once."""
        new = self._folder / f"{name}.new"
        new.write_text(f"{offset_s:+g}\n")
        new.replace(self._file(name))  # whole or not at all: it is read at any time

    def _file(self, name: str) -> Path:
        return self._folder / name
