"""The control service of AegisIPC: registry, leases, failover, and the operators' tools."""
