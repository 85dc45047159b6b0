"""Adapters: NATS, threads and clocks behind the application's ports."""
