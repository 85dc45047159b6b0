"""The published language of turns (docs/protocol.md)."""
