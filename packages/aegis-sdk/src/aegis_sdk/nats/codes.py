"""JetStream's words that this protocol uses: headers, and the numbers of refusals, each tried against nats-server 2.15.1.

The protocol rests on two refusals. 10077 says that a subject has its one message, which makes outcomes, ownership entries
and ends create-only (G2). 10071 says that a gate is no longer the one that the message names, which shuts a replaced writer
out (G5).
"""

from __future__ import annotations

from typing import Final

EXPECTED_SEQ: Final = "Nats-Expected-Last-Subject-Sequence"
"""Store only if the subject's last message has this sequence; 0: if it has none."""
EXPECTED_SUBJECT: Final = "Nats-Expected-Last-Subject-Sequence-Subject"
"""The subject that is looked at, where it is another than the message's own. R3: one exact subject, never a wildcard."""
ROLLUP: Final = "Nats-Rollup"
"""`sub`: the message replaces all before it on its subject. So gates and checkpoints pass the bound of one message a
subject.
"""
TTL: Final = "Nats-TTL"
"""How long the server keeps the message, as `60s`; a stream must allow it."""
BATCH_ID: Final = "Nats-Batch-Id"
BATCH_SEQ: Final = "Nats-Batch-Sequence"
BATCH_COMMIT: Final = "Nats-Batch-Commit"
"""On the last of a batch: store all of them now, or none."""

ERR_WRONG_LAST_SEQUENCE: Final = 10071
"""EXPECTED_SEQ is not so (any more)."""
ERR_BUSY: Final = 10164
"""R3: another check of the same subject is in flight. Nothing was stored; ask again."""
ERR_STORE_FAILED: Final = 10077
"""The subject has its one message, or the stream is full: the text tells which ("per subject")."""
ERR_BATCH_DUPLICATE: Final = 10201
"""One of an atomic batch has an id that the stream has seen: nothing of it is stored."""
ERR_NO_STREAM: Final = 10059
ERR_NO_CONSUMER: Final = 10014
ERR_NO_MESSAGE: Final = 10037
"""Of a read: nothing is at that sequence, or on that subject. The stream is there."""
ERR_ACCOUNT_FULL: Final = 10002
ERR_NO_RESOURCES: Final = 10023
ERR_NO_STORAGE: Final = 10047
"""Of the account, of memory, of the disk: like a full stream, this passes when somebody makes room."""
ERR_NEEDS_MAX_BYTES: Final = 10113
"""The account wants each stream to have a bound."""
ERR_OVER_MAX_BYTES: Final = 10122
"""The account has a smaller one for each stream."""
ERR_NO_PEERS: Final = 10005
"""A cluster has not seen enough of its nodes yet to place a stream. It passes."""
