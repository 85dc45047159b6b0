"""`ipc-cli timers` with a real control, real instances and their log."""

from __future__ import annotations

from tests.integration.cli.system import ADD, System


async def test_timers_are_listed_by_when_they_are_due(system: System) -> None:
    """From the log alone; control and instances are not asked."""
    first = await system.later({"close": 3600.0, "expire": 60.0, "gone": 50.0, "soon": 0.0})
    await system.later({"gone": -1.0})
    second = await system.later({"close": 1800.0}, "T-2")
    await system.until_total(1)
    await system.stop_control()
    listed = (await system.cli("timers", "totals", "-o", "json")).json["timers"]
    assert [(each["resource"], each["name"], each["method"]) for each in listed] == [
        ("T-1", "expire", "add"),
        ("T-2", "close", "add"),
        ("T-1", "close", "add"),
    ]
    assert [each["set_by"] for each in listed] == [first, second, first]
    assert [each["due"] for each in listed] == sorted(each["due"] for each in listed)
    one = await system.cli("timers", "totals", "T-2", "-o", "json")
    assert [each["name"] for each in one.json["timers"]] == ["close"]
    shown = await system.cli("timers", "totals", "-n", "1")
    assert "expire" in shown.out
    assert "2 later ones are left out" in shown.out
    history = await system.cli("history", "T-1")
    assert "timer gone (dropped)" in history.out
    assert "timer close" in history.out
    for wrong in (("timers", "nobody"), ("timers", "totals", "T-9")):
        refused = await system.cli(*wrong)
        assert (refused.code, refused.out) == (3, "")


async def test_what_is_submitted_for_later_is_told_from_the_log(system: System) -> None:
    ticket = await system.caller.submit(ADD, 5, resource="T-1", not_before=3600.0)

    async def is_timer() -> bool:
        return bool((await system.cli("timers", "totals", "-o", "json")).json["timers"])

    await system.until("it waits", is_timer)
    [listed] = (await system.cli("timers", "totals", "T-1", "-o", "json")).json["timers"]
    assert (listed["method"], listed["set_by"]) == ("add", ticket.id)
    explained = await system.cli("explain", ticket.id)
    assert "waits for its time as a timer of T-1" in explained.out
    cancelled = await system.cli("cancel", ticket.id)
    assert "cancelled" in cancelled.out
    assert (await system.cli("timers", "totals", "-o", "json")).json["timers"] == []
