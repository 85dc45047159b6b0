"""The rules of who may be active, who is next, and when an instance is lost."""
