"""`python -m bench chaos`: see bench/chaos/command.py."""

from bench.chaos.command import HELP, IN_ALL, add_arguments, run

__all__ = ["HELP", "IN_ALL", "add_arguments", "run"]
