"""The protocol: one log per service, one writer per instance, one entry per turn (docs/protocol.md)."""
