"""Each promise attacked on real processes. Load checks every reply against all that came before it."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import aegis_sdk
import pytest
from aegis_sdk import Cancelled, HandlerFailed, NotExecuted, Rejected, Role, SecondActive
from aegis_sdk.contract.envelope import OutcomeKind

from bench.chaos.clocks import LIBRARY, Clocks
from tests.scenarios.ledger import Booking, Echo, Methods, ledger
from tests.scenarios.system import Load, Process, System, eventually, new_service, running_system

pytestmark = pytest.mark.core
PAIR = {"A": "auto", "B": "auto", "C": "auto", "D": "auto"}


async def start_pair(system: System, service: str) -> tuple[Process, Process]:
    first = await system.start_ledger(service, PAIR, instance_id="one")
    second = await system.start_ledger(service, PAIR, instance_id="two")
    return first, second


async def test_accepted_requests_survive_the_death_of_every_process() -> None:
    """G1: requests are executed, once each, though instance, control and NATS were killed meanwhile."""
    async with running_system() as system:
        service = new_service()
        methods = Methods(service)
        one = await system.start_ledger(service, {"A": "auto"}, instance_id="one")
        async with aegis_sdk.connect(system.url) as aegis:
            await aegis.request(methods.book, Booking(op="first"), resource="A")
            one.send(signal.SIGSTOP)
            tickets = [
                await aegis.submit(methods.book, Booking(op=f"op-{n}"), resource="A")
                for n in range(50)
            ]
            await one.kill()
            for process in system.processes:
                if process.running:
                    await process.kill()
            await system.crash_nats()
            await system.start_control()
            await system.start_ledger(service, {"A": "auto"}, instance_id="one-again")
            totals = [await aegis.attach(t.id, methods.book, timeout_s=20) for t in tickets]
        assert [total.count for total in totals] == list(range(2, 52))
        assert totals[-1].ops == ["first", *(f"op-{n}" for n in range(50))]


async def test_kills_of_the_active_lose_nothing_and_double_nothing(system: System) -> None:
    """G3, G5, G6, G7, G8: every reply fits all earlier ones, through three kill -9 under load."""
    service = new_service()
    methods = Methods(service)
    active, standby = await start_pair(system, service)
    async with aegis_sdk.connect(system.url) as aegis:
        load = Load(aegis, methods)
        load.start(*PAIR)
        for n in range(3):
            await load.wait_done(load.done + 100)
            await active.kill()
            active, standby = standby, await system.start_ledger(
                service, PAIR, instance_id=f"next-{n}"
            )
        await load.wait_done(load.done + 100)
        await load.stop()
        assert load.errors == []
    outcomes = await system.journal(service)
    assert len(outcomes) == load.done
    assert all(outcome.kind is OutcomeKind.EXECUTED for outcome in outcomes.values())
    assert max(load.waits_s) < 1.5


async def test_a_paused_active_that_wakes_up_changes_nothing(system: System) -> None:
    """G5, G6: a zombie's commit is refused by the server, and it follows as a standby afterwards."""
    service = new_service()
    methods = Methods(service)
    one, two = await start_pair(system, service)
    async with aegis_sdk.connect(system.url) as aegis:
        load = Load(aegis, methods)
        load.start(*PAIR)
        await load.wait_done(100)
        one.send(signal.SIGSTOP)
        await two.wait_for("promoted", resource="A")
        await load.wait_done(load.done + 50)
        one.send(signal.SIGCONT)
        await one.wait_for("demoted", resource="A")
        await load.wait_done(load.done + 100)
        # Now it is a standby again: it must take over with the whole state.
        await two.kill()
        await load.wait_done(load.done + 100)
        await load.stop()
        assert load.errors == []
    assert len(await system.journal(service)) == load.done


async def test_a_request_in_hand_at_the_kill_takes_effect_once(system: System) -> None:
    """G2, G3: begun by the old active, executed by the new one; the nested request too."""
    service = new_service()
    methods = Methods(service)
    one = await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    two = await system.start_ledger(service, {"A": "auto", "B": "auto"}, instance_id="two")
    async with aegis_sdk.connect(system.url) as aegis:
        forward = asyncio.create_task(
            aegis.request(
                methods.forward,
                Echo(text="nested", book="B", hold_s=0.6),
                resource="A",
                timeout_s=10,
            )
        )
        await two.wait_for("begun", op="nested")
        await one.kill()
        total = await forward
        assert (total.count, total.ops) == (1, ["nested"])
        again = await aegis.request(methods.read, Booking(op="read"), resource="B")
        assert again.count == 1


async def test_a_frozen_interpreter_is_busy_and_not_dead(system: System) -> None:
    """G5: 2 s without a single Python instruction, three times the heartbeat timeout: nothing moves."""
    service = new_service()
    methods = Methods(service)
    one, two = await start_pair(system, service)
    async with aegis_sdk.connect(system.url) as aegis:
        frozen = Booking(op="frozen", freeze_s=2.0)
        total = await aegis.request(methods.book, frozen, resource="A", timeout_s=10)
        assert total.ops == ["frozen"]
        after = await aegis.request(methods.book, Booking(op="after"), resource="A")
        assert after.count == 2
    assert one.count("begun", op="frozen") == 1
    assert two.count("promoted") == 0
    assert one.count("demoted") == 0


async def test_an_interpreter_that_stays_frozen_is_failed_over_as_stalled(system: System) -> None:
    """G3, G8: past the stall limit its resources move; what it had begun takes effect once."""
    service = new_service()
    methods = Methods(service)
    one, two = await start_pair(system, service)
    async with aegis_sdk.connect(system.url) as aegis:
        frozen = Booking(op="frozen", freeze_s=8.0)
        booked = asyncio.create_task(
            aegis.request(methods.book, frozen, resource="A", timeout_s=40)
        )
        await one.wait_for("begun", op="frozen")
        began = time.monotonic()
        await two.wait_for("promoted", resource="A")
        assert 4.0 < time.monotonic() - began < 7.0
        await two.wait_for("begun", op="frozen")
        assert (await booked).ops == ["frozen"]
    assert len(await system.journal(service)) == 1


async def test_a_deadline_ends_the_doubt_before_the_commit(system: System) -> None:
    """G4: `Cancelled` is certain: the handler goes on, but its effect never comes."""
    service = new_service()
    methods = Methods(service)
    await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    async with aegis_sdk.connect(system.url) as aegis:
        slow = Booking(op="slow", hold_s=0.8)
        with pytest.raises(NotExecuted):
            await aegis.request(methods.book, slow, resource="A", timeout_s=0.3)
        after = await aegis.request(methods.book, Booking(op="next"), resource="A")
        assert after.ops == ["next"]
    kinds = sorted(outcome.kind for outcome in (await system.journal(service)).values())
    assert kinds == [OutcomeKind.CANCELLED, OutcomeKind.EXECUTED]


async def test_cancel_and_commit_race_to_one_outcome(system: System) -> None:
    """G2, G4: deadlines set right onto the commit: what the caller was told is what the state shows."""
    service = new_service()
    methods = Methods(service)
    await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    executed, cancelled = [], []
    async with aegis_sdk.connect(system.url) as aegis:
        for n in range(120):
            op = f"race-{n}"
            try:
                await aegis.request(
                    methods.book,
                    Booking(op=op),
                    resource="A",
                    timeout_s=0.0005 + 0.00005 * (n % 80),
                )
                executed.append(op)
            except NotExecuted:
                cancelled.append(op)
        total = await aegis.request(methods.read, Booking(op="read"), resource="A")
    assert total.ops == executed
    assert executed, "no commit won: the race was not run"
    assert cancelled, "no cancel won: the race was not run"


async def test_an_idempotency_key_has_one_effect_whoever_uses_it(system: System) -> None:
    """G2, G3: eight callers on connections of their own, one key, one booking."""
    service = new_service()
    methods = Methods(service)
    await system.start_ledger(service, {"A": "auto"}, instance_id="one")

    async def call() -> int:
        async with aegis_sdk.connect(system.url) as aegis:
            total = await aegis.request(
                methods.book, Booking(op="once"), resource="A", key="ORD-1/2 ünï"
            )
            return total.count

    assert await asyncio.gather(*(call() for _ in range(8))) == [1] * 8
    assert await call() == 1
    async with aegis_sdk.connect(system.url) as aegis:
        with pytest.raises(aegis_sdk.KeyReused):
            await aegis.request(methods.book, Booking(op="other"), resource="A", key="ORD-1/2 ünï")


async def test_a_caller_that_dies_is_answered_in_its_next_life(system: System) -> None:
    """G4: `attach` from another connection returns the stored outcome, errors included."""
    service = new_service()
    methods = Methods(service)
    await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    async with aegis_sdk.connect(system.url) as aegis:
        done = await aegis.submit(methods.book, Booking(op="kept"), resource="A")
        refused = await aegis.submit(methods.book, Booking(op="zero", delta=0), resource="A")
    async with aegis_sdk.connect(system.url) as aegis:
        assert (await aegis.attach(done.id, methods.book)).ops == ["kept"]
        with pytest.raises(Rejected) as caught:
            await aegis.attach(refused.id, methods.book)
        assert (caught.value.code, caught.value.details) == ("zero", {"op": "zero"})


async def test_nats_killed_under_load_is_a_longer_wait_and_nothing_else(system: System) -> None:
    """G1, G3, G8: kill -9 of the only NATS node and its restart, with requests in flight."""
    service = new_service()
    methods = Methods(service)
    await start_pair(system, service)
    async with aegis_sdk.connect(system.url) as aegis:
        load = Load(aegis, methods)
        load.start(*PAIR)
        for _ in range(2):
            await load.wait_done(load.done + 100)
            await system.crash_nats()
        await load.wait_done(load.done + 100)
        await load.stop()
        assert load.errors == []
    assert len(await system.journal(service)) == load.done


async def test_the_data_path_serves_without_any_control(system: System) -> None:
    """Control is killed: requests go on, of new callers too."""
    service = new_service()
    methods = Methods(service)
    await start_pair(system, service)
    async with aegis_sdk.connect(system.url) as aegis:
        await system.processes[0].kill()
        load = Load(aegis, methods)
        load.start(*PAIR)
        await load.wait_done(200)
        await load.stop()
        assert load.errors == []


async def test_a_second_active_is_refused_by_name(system: System) -> None:
    service = new_service()
    await system.start_ledger(service, {"A": "active"}, instance_id="one")
    async with aegis_sdk.connect(system.url) as aegis:
        with pytest.raises(SecondActive, match="one"):
            await aegis.serve(ledger(service), resources={"A": Role.ACTIVE})


async def test_a_drained_instance_hands_over_without_an_error(system: System) -> None:
    """G8: SIGTERM under load: what was begun is finished, the rest goes to the standby."""
    service = new_service()
    methods = Methods(service)
    one, two = await start_pair(system, service)
    async with aegis_sdk.connect(system.url) as aegis:
        load = Load(aegis, methods)
        load.start(*PAIR)
        await load.wait_done(100)
        load.forget_waits()
        assert await one.end() == 0
        await two.wait_for("promoted", resource="A")
        await load.wait_done(load.done + 100)
        await load.stop()
        assert load.errors == []
        assert max(load.waits_s) < 1.0
    assert one.count("ended") == 1


async def test_a_request_that_kills_its_process_is_given_up_and_stops_nobody_else(
    system: System,
) -> None:
    """It ends as `failed` after three begins, with a copy in the DLQ; its neighbours go on."""
    service = new_service()
    methods = Methods(service)
    resources = {"A": "auto", "B": "auto"}
    for n in range(4):
        await system.start_ledger(service, resources, instance_id=f"i{n}")
    async with aegis_sdk.connect(system.url) as aegis:
        load = Load(aegis, methods)
        load.start("B")
        await load.wait_done(20)
        with pytest.raises(HandlerFailed, match="died"):
            await aegis.request(methods.die, Booking(op="poison"), resource="A", timeout_s=20)
        after = await aegis.request(methods.book, Booking(op="after"), resource="A")
        assert after.ops == ["after"]
        await load.wait_done(load.done + 20)
        await load.stop()
        assert load.errors == []
    begins = sum(process.count("dying") for process in system.processes)
    assert begins == 3


async def test_a_late_handler_can_not_undo_a_cancel(system: System) -> None:
    """G4: the stored `cancelled` wins although the handler passes its own check of the deadline late."""
    service = new_service()
    methods = Methods(service)
    await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    async with aegis_sdk.connect(system.url) as aegis:
        blocked = Booking(op="blocked", block_s=0.6)
        with pytest.raises((Cancelled, aegis_sdk.Expired)):
            await aegis.request(methods.book, blocked, resource="A", timeout_s=0.2)
        begun_s = time.monotonic()
        total = await aegis.request(methods.read, Booking(op="read"), resource="A")
        assert total.count == 0
        assert time.monotonic() - begun_s < 3.0


@pytest.mark.skipif(
    LIBRARY is None and "CI" not in os.environ, reason="libfaketime is not installed"
)
async def test_wrong_clocks_can_not_undo_a_cancel(system: System) -> None:
    """G4: an hour slow, the handler sees time left and commits too late; an hour fast, it gives up early."""
    service = new_service()
    methods = Methods(service)
    clocks = Clocks(system.folder / "clocks", seed=1)
    one = await system.start_ledger(
        service, {"A": "auto"}, instance_id="one", environment=clocks.environment("one")
    )
    async with aegis_sdk.connect(system.url) as aegis:
        clocks.set("one", -3600.0)
        slow = Booking(op="slow", hold_s=2.0)
        with pytest.raises(Cancelled):
            await aegis.request(methods.book, slow, resource="A", timeout_s=1.0)
        clocks.set("one", 3600.0)
        with pytest.raises(NotExecuted):
            await aegis.request(methods.book, Booking(op="fast"), resource="A", timeout_s=5.0)
        await one.wait_for("begun", op="slow")
        assert one.count("begun", op="slow") == 1
        assert one.count("begun", op="fast") == 0
        clocks.set("one", 0.0)
        total = await aegis.request(methods.book, Booking(op="right"), resource="A")
    assert total.ops == ["right"]


async def test_any_instance_left_is_seen_by_callers(system: System) -> None:
    """NoRoute at once, with nothing stored, when the last instance has left on purpose."""
    service = new_service()
    methods = Methods(service)
    one = await system.start_ledger(service, {"A": "auto"}, instance_id="one")
    async with aegis_sdk.connect(system.url) as aegis:
        await aegis.request(methods.book, Booking(op="a"), resource="A")
        await one.end()

        async def refused() -> bool:
            try:
                await aegis.request(methods.book, Booking(op="b"), resource="A", timeout_s=0.5)
            except aegis_sdk.NoRoute:
                return True
            except NotExecuted:
                return False
            return False

        begun_s = time.monotonic()
        assert await refused()
        assert time.monotonic() - begun_s < 0.5
    assert await eventually(lambda: not one.running)


async def test_keys_of_two_services_are_two_keys(system: System) -> None:
    """G2: the same order number in two services, at the same time, with the same payload."""
    services = [new_service(), new_service()]
    for n, service in enumerate(services):
        await system.start_ledger(service, {"A": "auto"}, instance_id=f"i{n}")
    async with aegis_sdk.connect(system.url) as aegis:
        await aegis.request(Methods(services[0]).book, Booking(op="first"), resource="A")
        totals = await asyncio.gather(
            *(
                aegis.request(Methods(service).book, Booking(op="x"), resource="A", key="O-1")
                for service in services
            )
        )
    assert [total.count for total in totals] == [2, 1]


async def test_both_controls_killed_and_restarted_under_load_lose_nothing() -> None:
    """G1, G5, G6, G8: the data path serves without any; the new ones fail an active over."""
    async with running_system(controls=2) as system:
        service = new_service()
        methods = Methods(service)
        one, two = await start_pair(system, service)
        async with aegis_sdk.connect(system.url) as aegis:
            load = Load(aegis, methods)
            load.start(*PAIR)
            await load.wait_done(50)
            for control in system.processes[:2]:
                await control.kill()
            await load.wait_done(load.done + 100)
            for _ in range(2):
                await system.start_control()
            await load.wait_done(load.done + 100)
            assert (
                one.count("demoted") == two.count("demoted") == 0
            ), "nobody was judged by the past"
            await one.kill()
            await load.wait_done(load.done + 100)
            await load.stop()
            assert load.errors == []
        assert two.count("promoted") == len(PAIR)
        assert len(await system.journal(service)) == load.done
