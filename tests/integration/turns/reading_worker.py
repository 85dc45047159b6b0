"""`worker.py` with a reader: `python -m tests.integration.turns.reading_worker URL PREFIX INSTANCE RESOURCE…`"""

from __future__ import annotations

import asyncio
import sys

from tests.integration.turns.support import reading
from tests.integration.turns.worker import main

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:], service=reading()))
