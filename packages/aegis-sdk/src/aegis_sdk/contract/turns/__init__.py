"""The published language of the second form (docs/protocol.md). Not used by the product yet."""
