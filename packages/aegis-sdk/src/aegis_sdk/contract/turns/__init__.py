"""The published language of the second form (docs/turns.md). Not used by the product yet."""
