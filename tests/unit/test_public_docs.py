"""Every public name of the SDK, and every public method of it, says what it is for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import aegis_sdk
import pytest
from aegis_sdk import blocking, testing


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name in getattr(module, "__all__", None) or [n for n in vars(module) if n[0] != "_"]:
        thing = getattr(module, name)
        if str(getattr(thing, "__module__", "")).startswith("aegis_sdk"):
            yield name, thing
            if inspect.isclass(thing):
                yield from ((f"{name}.{member}", own) for member, own in members(thing))


def members(kind: type) -> Iterator[tuple[str, Any]]:
    for name, found in vars(kind).items():
        own = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
        if not name.startswith("_") and inspect.isfunction(own):
            yield name, own


@pytest.mark.parametrize("module", [aegis_sdk, blocking, testing], ids=lambda m: m.__name__)
def test_each_public_name_is_documented(module: ModuleType) -> None:
    found = list(public(module))
    assert len(found) > 10
    assert [name for name, thing in found if not inspect.getdoc(thing)] == []
