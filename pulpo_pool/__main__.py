"""`python -m pulpo_pool` is `pulpo-pool`."""

from __future__ import annotations

from pulpo_pool.cli.entry import main

if __name__ == "__main__":
    main()
