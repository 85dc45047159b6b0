"""Serves all of the desk in one process: `python services.py`. In production each service is a process of its own.

Start it twice: the accounts and results spread over both, and each instance stands by for the other.
"""

from __future__ import annotations

import asyncio
import os

import aegis_sdk
from accounts import accounts
from aegis_sdk import Resources
from pnl import pnl
from risk import risk


async def main() -> None:
    url = os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222")
    async with aegis_sdk.connect(url, name="desk") as aegis:
        await aegis.serve(risk)
        await aegis.serve(pnl, resources=Resources("*"))
        instance = await aegis.serve(accounts, resources=Resources("ACC-*"))
        print("the desk serves", flush=True)
        await instance.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
