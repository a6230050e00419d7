"""Measurements of pulpo-pool; each module is a command, `python -m benchmarks.NAME`."""
