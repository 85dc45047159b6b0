"""What one client has seen of the services that it calls and reads: so it need not see less from another instance."""

from __future__ import annotations

from aegis_sdk.contract.turns.reads import position_text


class Positions:
    """The newest position that one client has seen of each service."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, int]] = {}

    def saw(self, service: str, position: str) -> None:
        log_id, _, seq_text = position.partition("@")
        seq = int(seq_text)
        seen = self._seen.get(service)
        if seen is None or seen[0] != log_id or seen[1] < seq:
            self._seen[service] = log_id, seq

    def newest(self, service: str) -> str:
        """Empty when nothing was seen."""
        seen = self._seen.get(service)
        return "" if seen is None else position_text(*seen)

    def forget(self, service: str) -> None:
        self._seen.pop(service, None)
