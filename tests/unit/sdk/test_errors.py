"""The public surface: the error tree as it is drawn, and the names that users import."""

from __future__ import annotations

import re

import aegis_sdk
import pytest
from aegis_sdk import errors


def _drawn() -> dict[str, str]:
    """class: parent, from the drawing in the module's docstring."""
    path: list[str] = []
    parents: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^((?:│  |   )*)(├─ |└─ )?([A-Z]\w+)", line)
        if found is None or not ("─" in line or line.strip() == "AegisError"):
            continue
        depth = len(found[1]) // 3 + (1 if found[2] else 0)
        path[depth:] = [found[3]]
        parents[found[3]] = path[depth - 1] if depth else "Exception"
    return parents


def _defined() -> dict[str, str]:
    return {
        name: value.__mro__[1].__name__
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.AegisError)
    }


def test_the_tree_that_is_drawn_is_the_tree_of_the_classes() -> None:
    assert _drawn() == _defined()


@pytest.mark.parametrize("name", aegis_sdk.__all__)
def test_every_public_name_can_be_had_without_the_others(name: str) -> None:
    """Each is looked up when it is first used: one whose module is not known would be missed only then."""
    found = getattr(aegis_sdk, name)
    assert found.__name__ == name
    assert found.__module__.startswith("aegis_sdk.")


def test_every_error_but_rejected_has_a_code_of_its_own() -> None:
    classes = [getattr(errors, name) for name in _defined() if name != "Rejected"]
    codes = [value.code for value in classes]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_every_error_is_public() -> None:
    assert set(_defined()) <= set(aegis_sdk.__all__)


def test_not_executed_holds_exactly_what_is_safe_to_retry() -> None:
    """G4: whatever is under NotExecuted certainly had and will have no effect."""
    safe = {name for name, parent in _defined().items() if parent == "NotExecuted"}
    assert safe == {
        "NoRoute",
        "TooFarBehind",
        "LogLost",
        "Paused",
        "Overloaded",
        "Expired",
        "Cancelled",
        "Draining",
    }


def test_a_rejection_carries_what_the_handler_said() -> None:
    error = errors.Rejected("no_funds", "10 short", {"short": 10})
    assert (error.code, error.message, error.details) == ("no_funds", "10 short", {"short": 10})
    assert str(error) == "no_funds: 10 short"
    assert str(errors.Rejected("no_funds")) == "no_funds"
