"""Between nodes: how agents and ranks of one job talk over a network."""
