"""The second form's NATS side (docs/protocol.md): bytes and subjects to values, and back. Nothing is decided here."""
