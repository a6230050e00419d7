"""pulpo-pool: the supervisor-first worker pool for Python."""

__version__ = "0.1.0"
