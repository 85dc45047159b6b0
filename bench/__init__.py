"""The benchmark suite: `python -m bench latency|throughput|scale|soak|all`.

It measures AegisIPC beside what a user would take instead, in one run, on the same work, and counts
every request against its outcome and its effect: a run that lost or doubled one fails.
"""
