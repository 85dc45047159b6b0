"""Transfers between accounts of different owners, each by one nested request.

A transfer has no deadline: one that is cancelled between its credit and its debit would keep the
credit, for a nested request commits by itself. Money goes from payers to receivers alone: two
accounts that wait for each other would only wait for a deadline.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from aegis_sdk import Method, Rejected, ResourceContext, Service

from bench.chaos.history import nested
from bench.chaos.workloads.api import TIMEOUT_S, Ask, Named

OPENED_WITH = 1_000_000


class Amount(Named):
    amount: int


class Transfer(Amount):
    to: str


@dataclass(frozen=True)
class Transfers:
    name: str = "transfers"
    service_name: str = "chaos-accounts"
    payers: tuple[str, ...] = ("P-0", "P-1", "P-2")
    receivers: tuple[str, ...] = ("Q-0", "Q-1", "Q-2")
    crowd: int = 1

    @property
    def resources(self) -> tuple[str, ...]:
        return self.payers + self.receivers

    @cached_property
    def transfer(self) -> Method[Transfer, int]:
        return Method(self.service_name, "transfer", request=Transfer, reply=int)

    @cached_property
    def credit(self) -> Method[Amount, int]:
        return Method(self.service_name, "credit", request=Amount, reply=int)

    @cached_property
    def read(self) -> Method[Named, int]:
        return Method(self.service_name, "read", request=Named, reply=int)

    def service(self) -> Service:
        service = Service(self.service_name)

        @service.handles(self.transfer)
        async def transfer(ctx: ResourceContext, request: Transfer) -> int:
            balance = (ctx.state.get("balance", int) or 0) - request.amount
            if balance < 0:
                raise Rejected("insufficient_funds", f"{ctx.resource} lacks {-balance}")
            credited = Amount(op=nested(request.op), amount=request.amount)
            await ctx.request(self.credit, credited, resource=request.to, timeout_s=4 * TIMEOUT_S)
            ctx.state.set("balance", balance)
            return balance

        @service.handles(self.credit, pure=True)
        def credit(ctx: ResourceContext, request: Amount) -> int:
            balance = (ctx.state.get("balance", int) or 0) + request.amount
            ctx.state.set("balance", balance)
            return balance

        @service.handles(self.read, pure=True)
        def read(ctx: ResourceContext, _: Named) -> int:
            return ctx.state.get("balance", int) or 0

        return service

    def opening(self, op: str, resource: str) -> Ask | None:
        amount = OPENED_WITH if resource in self.payers else 0
        return Ask(
            kind="open",
            resource=resource,
            method=self.credit,
            payload=Amount(op=op, amount=amount),
            args={"amount": amount},
        )

    def draw(self, source: Random, op: str, last: Any) -> Ask:
        too_much = source.random() < 0.02
        args: dict[str, Any] = {
            "amount": 10 * OPENED_WITH if too_much else source.randrange(1, 100),
            "to": source.choice(self.receivers),
        }
        return Ask(
            kind="transfer",
            resource=source.choice(self.payers),
            method=self.transfer,
            payload=Transfer(op=op, **args),
            args=args,
            timeout_s=None,
        )


TRANSFERS = Transfers()
