"""How often a handler that raised is run again. Plain Python, as its callers may give it anything (contract/arguments.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aegis_sdk.contract import arguments
from aegis_sdk.domain.delivery import backoff_s

RETRIES_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Retries:
    """Opt-in retries of a handler that raised: total `attempts`, waits doubling from `wait_s`.

    Raises: InvalidArgument.
    """

    attempts: int = 1
    wait_s: float = 0.05
    wait_s_max: float = 1.0

    def __post_init__(self) -> None:
        arguments.whole(self.attempts, "attempts", least=1, most=RETRIES_MAX)
        arguments.duration_s(self.wait_s, "wait_s")
        arguments.duration_s(self.wait_s_max, "wait_s_max")

    def wait_before(self, attempt: int) -> float | None:
        """Seconds to wait before `attempt` (2 is the first retry); None: give up."""
        if attempt > self.attempts:
            return None
        return backoff_s(attempt - 1, first_s=self.wait_s, max_s=self.wait_s_max)
