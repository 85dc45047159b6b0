"""A rolling restart: every instance is drained, replaced and followed by the next, under load."""

from __future__ import annotations

import asyncio
import time

import aegis_sdk
from aegis_control.infrastructure.admin_client import AdminClient
from aegis_control.infrastructure.embedded_nats import EmbeddedNats
from aegis_sdk import Aegis

from tests.scenarios.ledger import Echo, Methods
from tests.scenarios.system import Load, System, new_service

FOUR = {"A": "auto", "B": "auto", "C": "auto", "D": "auto"}


class GroupLoad:
    """Callers of the group, one request after the other, and how long each waited."""

    def __init__(self, aegis: Aegis, methods: Methods) -> None:
        self._aegis = aegis
        self._methods = methods
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.waits_s: list[float] = []
        self.done = 0
        self.errors: list[str] = []

    def start(self, callers: int) -> None:
        self._tasks = [asyncio.create_task(self._call(n)) for n in range(callers)]

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _call(self, caller: int) -> None:
        n = 0
        while not self._stopping.is_set():
            n += 1
            text = f"{caller}-{n}"
            begun_s = time.monotonic()
            try:
                reply = await self._aegis.request(
                    self._methods.echo, Echo(text=text), timeout_s=20.0
                )
            except aegis_sdk.AegisError as error:
                self.errors.append(f"{text}: {error!r}")
                return
            self.waits_s.append(time.monotonic() - begun_s)
            self.done += 1
            if (reply.text, reply.attempt) != (text, 1):
                self.errors.append(f"{text}: answered {reply.text}, run {reply.attempt}")
            await asyncio.sleep(0.002)


async def test_a_rolling_restart_shows_no_error_and_hardly_any_wait(system: System) -> None:
    """G8: three instances, each drained by SIGTERM and replaced, on both routes. A group request is
    served by whom it was given to: handed back or dropped, it would be run as a second attempt.
    """
    service = new_service()
    methods = Methods(service)
    running = [await system.start_ledger(service, FOUR, instance_id=f"old-{n}") for n in range(3)]
    async with aegis_sdk.connect(system.url) as aegis:
        targeted = Load(aegis, methods)
        group = GroupLoad(aegis, methods)
        targeted.start(*FOUR)
        group.start(4)
        await targeted.wait_done(200)
        targeted.forget_waits()
        group.waits_s.clear()
        for n, old in enumerate(running):
            assert await old.end() == 0
            await targeted.wait_done(targeted.done + 100)
            await system.start_ledger(service, FOUR, instance_id=f"new-{n}")
            await targeted.wait_done(targeted.done + 100)
        await asyncio.gather(targeted.stop(), group.stop())
    assert targeted.errors == group.errors == []
    # About 50 ms on a quiet machine; what is left is the wait for a core while a process starts.
    assert max(targeted.waits_s) < 1.0
    assert max(group.waits_s) < 1.0
    outcomes = await system.journal(service)
    assert all(process.logged("link_task_failed") == [] for process in system.processes)
    assert len(outcomes) == targeted.done + group.done


async def registered(system: System, service: str, instance_id: str) -> None:
    """Returns when control knows the instance."""
    async with AdminClient(system.url) as admin, asyncio.timeout(10.0):
        while True:
            view = (await admin.describe(service)).view
            if instance_id in [each.instance_id for each in view.instances]:
                return
            await asyncio.sleep(0.01)


async def test_a_long_group_request_holds_no_resource_up_while_its_member_drains(
    system: System,
) -> None:
    """G8: resources are served until the handover, however long the rest of the drain takes."""
    service = new_service()
    methods = Methods(service)
    one = await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    async with aegis_sdk.connect(system.url) as aegis:
        long_ = asyncio.create_task(
            aegis.request(methods.echo, Echo(text="long", hold_s=1.5), timeout_s=10)
        )
        await one.wait_for("begun", op="long")
        two = await system.start_ledger(service, {"A": "auto"}, instance_id="two")
        load = Load(aegis, methods)
        load.start("A")
        await load.wait_done(20)
        load.forget_waits()
        assert await one.end() == 0
        await two.wait_for("promoted", resource="A")
        await load.wait_done(load.done + 20)
        await load.stop()
        assert (await long_).instance_id == "one"
    assert load.errors == []
    assert max(load.waits_s) < 1.0


async def test_an_instance_whose_nats_is_gone_ends_on_sigterm(system: System) -> None:
    """Its last words fail with the dead connection, which once kept it from ever ending."""
    await system.start_control()
    instance = await system.start_ledger(new_service(), {"A": "active"}, instance_id="i-1")
    assert isinstance(system.nats, EmbeddedNats)
    system.nats.kill()
    await asyncio.sleep(0.5)
    assert await instance.end() == 0
