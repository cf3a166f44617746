"""How methods are scored: ``sweep`` and ``curves`` (the protocol), ``feasibility`` (the open world)."""
