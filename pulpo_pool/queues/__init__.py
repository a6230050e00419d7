"""Where jobs wait: one contract, an adapter for each engine."""
