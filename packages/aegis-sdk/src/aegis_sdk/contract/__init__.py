"""The published language: what SDK, control and operators' tools say to each other.

Values and pure functions only; it knows no broker client and no event loop. `aegis_control` imports
this package of the SDK (with `aegis_sdk.errors`) and no other.
"""
