"""The ids of nested requests, as the published language derives them."""

from __future__ import annotations

from aegis_sdk.contract.ids import child_id


def first_child_id(op: str) -> str:
    """The id of the first request that the handler of `op` makes."""
    return child_id(op, 1)
