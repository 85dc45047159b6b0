"""AegisIPC SDK."""
