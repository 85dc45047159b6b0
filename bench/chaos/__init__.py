"""The chaos suite: workloads under faults, and checkers that judge what came of it."""
