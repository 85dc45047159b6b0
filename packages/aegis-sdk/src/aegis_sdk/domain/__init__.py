"""Decisions of the delivery protocol as plain values and functions: no loop, broker, clock or log."""
