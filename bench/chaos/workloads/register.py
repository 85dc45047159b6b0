"""Registers with compare-and-set: the workload whose answers have to fit one order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from aegis_sdk import Method, ReadContext, ResourceContext, Service
from pydantic import BaseModel

from bench.chaos.workloads.api import Ask, Named

VALUES = 5
"""Few, so that a compare-and-set often meets the value that it expects."""


class Write(Named):
    value: int


class Seen(BaseModel):
    """What a read gives: the value, and how often it was written."""

    value: int
    version: int


class Cas(Named):
    old: int
    new: int


@dataclass(frozen=True)
class Register:
    name: str = "register"
    service_name: str = "chaos-register"
    resources: tuple[str, ...] = ("R-0", "R-1", "R-2")
    crowd: int = 1

    @cached_property
    def write(self) -> Method[Write, int]:
        return Method(self.service_name, "write", request=Write, reply=int)

    @cached_property
    def cas(self) -> Method[Cas, bool]:
        return Method(self.service_name, "cas", request=Cas, reply=bool)

    @cached_property
    def read(self) -> Method[Named, int]:
        return Method(self.service_name, "read", request=Named, reply=int)

    @cached_property
    def look(self) -> Method[Named, Seen]:
        return Method(self.service_name, "look", request=Named, reply=Seen)

    def service(self) -> Service:
        service = Service(self.service_name)

        @service.handles(self.write, pure=True)
        def write(ctx: ResourceContext, request: Write) -> int:
            _set(ctx, request.value)
            return request.value

        @service.handles(self.cas, pure=True)
        def cas(ctx: ResourceContext, request: Cas) -> bool:
            if (ctx.state.get("value", int) or 0) != request.old:
                return False
            _set(ctx, request.new)
            return True

        @service.handles(self.read, pure=True)
        def read(ctx: ResourceContext, _: Named) -> int:
            return ctx.state.get("value", int) or 0

        @service.reads(self.look)
        def look(ctx: ReadContext, _: Named) -> Seen:
            value, version = ctx.state.get("value", int), ctx.state.get("version", int)
            return Seen(value=value or 0, version=version or 0)

        return service

    def opening(self, op: str, resource: str) -> Ask | None:
        return None

    def draw(self, source: Random, op: str, last: Any) -> Ask:
        resource = source.choice(self.resources)
        value = source.randrange(1, VALUES + 1)
        match source.choice(["read", "look", "peek", "write", "cas", "cas"]):
            case "look" | "peek" as kind:
                return Ask(
                    kind=kind,
                    resource=resource,
                    method=self.look,
                    payload=Named(op=op),
                    at="active" if kind == "look" else "standby",
                )
            case "read":
                return Ask(kind="read", resource=resource, method=self.read, payload=Named(op=op))
            case "write":
                return Ask(
                    kind="write",
                    resource=resource,
                    method=self.write,
                    payload=Write(op=op, value=value),
                    args={"value": value},
                )
        args = {"old": source.randrange(1, VALUES + 1), "new": value}
        return Ask(
            kind="cas",
            resource=resource,
            method=self.cas,
            payload=Cas(op=op, old=args["old"], new=args["new"]),
            args=args,
        )


def _set(ctx: ResourceContext, value: int) -> None:
    ctx.state.set("value", value)
    ctx.state.set("version", (ctx.state.get("version", int) or 0) + 1)


REGISTER = Register()
