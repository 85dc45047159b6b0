"""Models of the protocol for the model checker spin: `uv run python -m model`.

`turns.pml` is the protocol, `check.pml` the server's check of a gate, `checkpoints.pml` checkpoints and the
trim. `configurations.py` says how large they are searched and which mutations must fail, `checker.py`
drives spin and gcc. docs/model.md explains all of it.
"""
