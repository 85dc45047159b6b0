"""A model of the protocol for the model checker spin: `uv run python -m model`.

`protocol.pml` is the model, `configurations.py` says how large it is searched and which mutations
must fail, `checker.py` drives spin and gcc. docs/model.md explains all of it.
"""
