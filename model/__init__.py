"""Models of the protocol for the model checker spin: `uv run python -m model`.

`protocol.pml` is the protocol, `following.pml` how an instance joins its journal, `configurations.py`
says how large they are searched and which mutations must fail, `checker.py` drives spin and gcc.
docs/model.md explains all of it.
"""
