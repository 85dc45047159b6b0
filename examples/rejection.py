"""What a caller can be told, and whether it may try again.

    aegis-control serve --embedded        # in another terminal
    python examples/rejection.py

A rejection is an answer: stored, final, without effect. `NotExecuted` had certainly no effect, so
trying again is safe. There is no third case to fear but `OutcomeUnknown`, when NATS is out of reach.
"""

from __future__ import annotations

import asyncio
import os

import aegis_sdk
from aegis_sdk import Method, ResourceContext, Role, Service
from aegis_sdk.errors import NotExecuted, Rejected
from pydantic import BaseModel


class Withdrawal(BaseModel):
    amount: int


class Balance(BaseModel):
    amount: int


WITHDRAW = Method("purses", "withdraw", request=Withdrawal, reply=Balance)

purses = Service("purses")


@purses.handles(WITHDRAW)
async def withdraw(ctx: ResourceContext, asked: Withdrawal) -> Balance:
    balance = ctx.state.get("balance", int)
    balance = 100 if balance is None else balance
    if asked.amount > balance:
        raise Rejected("insufficient_funds", "not enough money", {"balance": balance})
    ctx.state.set("balance", balance - asked.amount)
    return Balance(amount=balance - asked.amount)


async def ask(aegis: aegis_sdk.Aegis, resource: str, amount: int) -> None:
    asked = Withdrawal(amount=amount)
    try:
        balance = await aegis.request(WITHDRAW, asked, resource=resource, timeout_s=2.0)
    except Rejected as rejected:
        print(f"{resource} -{amount}: rejected, {rejected.code} {rejected.details}")
    except NotExecuted as error:
        print(f"{resource} -{amount}: certainly not executed, {error.code}")
    else:
        print(f"{resource} -{amount}: {balance.amount} left")


async def main() -> None:
    url = os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222")
    async with aegis_sdk.connect(url, name="rejection") as aegis:
        await aegis.serve(purses, resources={"P-1": Role.ACTIVE})
        await ask(aegis, "P-1", 30)
        await ask(aegis, "P-1", 500)
        await ask(aegis, "P-2", 30)


if __name__ == "__main__":
    asyncio.run(main())
