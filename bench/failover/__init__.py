"""How long callers wait when the active of a resource goes: a distribution over many failovers."""
