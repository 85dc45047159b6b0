"""The protocol: one log per service, one writer per instance, one entry per turn.

Not used by the product yet: it stands beside the form of docs/protocol.md until that is replaced.
"""
