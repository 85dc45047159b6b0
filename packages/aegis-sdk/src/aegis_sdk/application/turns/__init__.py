"""The second form's use cases (docs/turns.md): a host that executes a writer, and a caller."""
