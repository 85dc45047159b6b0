"""JetStream's words that this protocol uses: headers, and the numbers of refusals, each tried against nats-server 2.15.1."""

from __future__ import annotations

from typing import Final

EXPECTED_SEQ: Final = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT: Final = "Nats-Expected-Last-Subject-Sequence-Subject"
ROLLUP: Final = "Nats-Rollup"
TTL: Final = "Nats-TTL"
BATCH_ID: Final = "Nats-Batch-Id"
BATCH_SEQ: Final = "Nats-Batch-Sequence"
BATCH_COMMIT: Final = "Nats-Batch-Commit"

ERR_WRONG_LAST_SEQUENCE: Final = 10071
ERR_BUSY: Final = 10164
"""R3: another check of the same subject is in flight. Nothing was stored; ask again."""
ERR_STORE_FAILED: Final = 10077
ERR_BATCH_DUPLICATE: Final = 10201
"""One of an atomic batch has an id that the stream has seen: nothing of it is stored."""
ERR_NO_STREAM: Final = 10059
ERR_NO_CONSUMER: Final = 10014
ERR_NO_MESSAGE: Final = 10037
ERR_ACCOUNT_FULL: Final = 10002
ERR_NO_RESOURCES: Final = 10023
ERR_NO_STORAGE: Final = 10047
ERR_NEEDS_MAX_BYTES: Final = 10113
"""The account wants each stream to have a bound."""
ERR_OVER_MAX_BYTES: Final = 10122
"""The account has a smaller one for each stream."""
ERR_NO_PEERS: Final = 10005
