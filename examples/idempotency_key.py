"""The same request under the same key takes effect once, also from another process, also later.

    aegis-control serve --embedded        # in another terminal
    python examples/idempotency_key.py

A key is for requests that you may send again without knowing whether you did before: after a crash
of the caller, or when a file of orders is read a second time. A key with another payload is refused.
"""

from __future__ import annotations

import asyncio
import os
import uuid

import aegis_sdk
from aegis_sdk import Method, ResourceContext, Role, Service
from aegis_sdk.errors import KeyReused
from pydantic import BaseModel


class Deposit(BaseModel):
    amount: int


class Balance(BaseModel):
    amount: int


DEPOSIT = Method("wallets", "deposit", request=Deposit, reply=Balance)

wallets = Service("wallets")


@wallets.handles(DEPOSIT)
async def deposit(ctx: ResourceContext, asked: Deposit) -> Balance:
    balance = (ctx.state.get("balance", int) or 0) + asked.amount
    ctx.state.set("balance", balance)
    return Balance(amount=balance)


async def main() -> None:
    url = os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222")
    key = f"transfer-{uuid.uuid4()}"  # in earnest: the id that the order has in your own books
    async with aegis_sdk.connect(url, name="idempotency-key") as aegis:
        await aegis.serve(wallets, resources={"W-1": Role.ACTIVE})
        for _ in range(2):
            balance = await aegis.request(
                DEPOSIT, Deposit(amount=50), resource="W-1", timeout_s=2.0, key=key
            )
            print(f"deposited 50 as {key}: the balance is {balance.amount}")
        try:
            await aegis.request(DEPOSIT, Deposit(amount=51), resource="W-1", timeout_s=2.0, key=key)
        except KeyReused as refused:
            print(f"another payload under the same key: {refused.code}")


if __name__ == "__main__":
    asyncio.run(main())
