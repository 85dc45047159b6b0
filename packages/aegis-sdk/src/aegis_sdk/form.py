"""Which form of the protocol the product speaks: for the time of the switch to the second one (docs/protocol.md)."""

from __future__ import annotations

import os
from typing import Final

TURNS: Final = os.environ.get("AEGIS_TURNS", "") == "1"
"""The second form. All processes of a system have to have the same."""
