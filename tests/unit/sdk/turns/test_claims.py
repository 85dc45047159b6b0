"""R10: of the processes that claim one writer, the one whose claim comes last may write, and only behind its gate."""

from __future__ import annotations

from aegis_sdk.domain.turns.claims import Claims

WRITER = "accounts-1~1"


def claiming(*nonces: str, session: str = "s1") -> Claims:
    claims = Claims(WRITER)
    for nonce in nonces:
        claims.begin(nonce, session)
    return claims


def test_a_claim_holds_from_the_gate_behind_it_on() -> None:
    """A gate before it keeps nobody out who reads no claim yet."""
    claims = claiming("n1")
    claims.read_gate(WRITER)
    assert not claims.is_claimed
    assert claims.read_claim(WRITER, "n1") == ""
    assert not claims.is_claimed
    assert not claims.may_write("s1")
    claims.read_gate(WRITER)
    assert claims.is_claimed
    assert claims.may_write("s1")


def test_the_gate_of_another_writer_says_nothing() -> None:
    claims = claiming("n1")
    claims.read_claim(WRITER, "n1")
    claims.read_gate("accounts-2~1")
    assert not claims.is_claimed


def test_a_new_connection_must_claim_anew() -> None:
    claims = claiming("n1")
    claims.read_claim(WRITER, "n1")
    claims.read_gate(WRITER)
    claims.begin("n2", "s2")
    assert not claims.is_claimed
    assert claims.may_write("s1")
    assert not claims.may_write("s2")
    claims.read_claim(WRITER, "n1")
    claims.read_gate(WRITER)
    assert not claims.is_claimed  # behind an older claim
    claims.read_claim(WRITER, "n2")
    claims.read_gate(WRITER)
    assert claims.may_write("s2")
    assert not claims.may_write("s1")
    assert not claims.may_write("")


def test_of_two_the_last_one_goes_on() -> None:
    """Each reads both claims, in the order of the log; any number of others' may come before the own."""
    first, last = claiming("n1"), claiming("n2")
    stops = {
        name: [claims.read_claim(WRITER, nonce) for nonce in ("n1", "n2")]
        for name, claims in {"first": first, "last": last}.items()
    }
    assert stops["last"] == ["", ""]
    assert stops["first"][0] == ""
    assert "another process runs as accounts-1" in stops["first"][1]


def test_the_claim_of_another_writer_stops_nobody() -> None:
    claims = claiming("n1")
    claims.read_claim(WRITER, "n1")
    assert claims.read_claim("accounts-2~1", "x") == ""
