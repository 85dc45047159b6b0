"""Control's part in trimming: every service's journal, by the retention that is set; operators are told."""

from __future__ import annotations

from aegis_control.application.leading.trim import Trim
from aegis_control.application.ports import Trimmed
from aegis_sdk.contract.control import Role

from tests.unit.control.support import SERVICE, Office


async def test_every_journal_is_trimmed_by_its_retention_and_operators_are_told() -> None:
    office = Office()
    await office.registers("a", Role.ACTIVE, ("R1", "R2"))
    trim = Trim(office.state, office.world)
    await trim()
    assert office.journal.trims == [(SERVICE, ["R1", "R2"], office.world.outcome_ttl_s)]
    assert not [name for name in office.events.names() if name.startswith("journal")]
    office.journal.trimmed = Trimmed(12, "R2")
    await trim()
    assert office.events.last("journal_trimmed")["entries"] == 12
    assert office.events.last("journal_trim_held_up")["resource"] == "R2"
