"""The demo of AegisIPC: a trading day over real processes, some of which are killed, and the proof that nothing was lost.

It is a user of the SDK like any other. `aegis-control demo` runs it (`cli.py`); `serve.py` has its parts for containers.
Of control it imports the embedded NATS and the form of a log line; control itself it starts as a process.
"""
