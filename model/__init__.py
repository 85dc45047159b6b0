"""Models of the protocol for the model checker spin: `uv run python -m model`.

`protocol.pml` is the protocol as it is, `following.pml` how an instance joins its journal. `turns.pml` is
the protocol's second form, `check.pml` the server's check of a gate, `checkpoints.pml` its checkpoints and
trim. `configurations.py` says how large they are searched and which mutations must fail, `checker.py`
drives spin and gcc. docs/model.md explains all of it.
"""
