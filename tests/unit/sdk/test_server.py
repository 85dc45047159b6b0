"""What logs and errors show of a NATS address."""

from __future__ import annotations

import pytest
from aegis_sdk.nats.login import Server


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://host:4222", "nats://host:4222"),
        ("host:4222", "host:4222"),
        ("nats://app:secret@host:4222", "nats://app:***@host:4222"),
        ("nats://app:s:e@cret@host:4222", "nats://app:***@host:4222"),
        ("nats://token@host", "nats://***@host"),
        ("nats://a:x@one:1, tls://b:y@two:2", "nats://a:***@one:1,tls://b:***@two:2"),
    ],
)
def test_passwords_and_tokens_are_hidden(url: str, shown: str) -> None:
    assert Server(url).shown_url == shown


def test_what_is_given_beside_the_url_is_hidden_too() -> None:
    server = Server(user="app", password="secret", token="secret", nkeys_seed="secret")
    assert "secret" not in repr(server)
