"""The use cases of turns (docs/protocol.md): a host that executes a writer, and a caller."""
