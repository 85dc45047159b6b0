"""The second form's use cases (docs/protocol.md): a host that executes a writer, and a caller."""
