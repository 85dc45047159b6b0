"""The NATS side of turns (docs/protocol.md): bytes and subjects to values, and back. Nothing is decided here."""
