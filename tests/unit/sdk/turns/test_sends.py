"""What a handler hands in, as its outcome's change has it: read back as it was, whatever the payload holds."""

from __future__ import annotations

from typing import Any

import pytest
from aegis_sdk.contract.envelope import Change, Request
from aegis_sdk.contract.turns.sends import handed_in, request_of
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)


@given(
    st.builds(
        Request,
        request_id=st.builds("c{}~{}.book-{:x}".format, *[st.integers(0, 10**6)] * 3),
        service=NAMES,
        method=NAMES,
        resource=st.none() | st.text(min_size=1, max_size=9),
        payload=st.binary(max_size=40) | st.text(max_size=40).map(str.encode),
        deadline_s=st.none() | st.integers(0, 10**10).map(float),
        fingerprint=st.sampled_from(["", "9f3a21c7d0e4b852"]),
        chain=st.sampled_from([(), ("c.1", "c~1.2")]),
        traceparent=st.sampled_from(["", f"00-{'a' * 32}-{'b' * 16}-01"]),
        tracestate=st.sampled_from(["", "vendor=1"]),
    )
)
def test_what_is_handed_in_is_read_from_the_stored_change_as_it_was(request: Request) -> None:
    stored = Change({"n": 1}, (), (handed_in(request),)).encode()
    (content,) = Change.decode(stored).send
    assert request_of(content) == request


@pytest.mark.parametrize("content", [{}, {"id": "c.1"}, {"id": "c.1", "to": "s.m"}, {"to": 1, "id": "c.1", "payload": 1},
                                     {"id": "a b", "to": "s.m", "payload": ""}, {"id": "c.1", "to": "s", "payload": ""}])  # fmt: skip
def test_what_is_no_request_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        request_of(content)
