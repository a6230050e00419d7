"""What an adapter promises, as tests to inherit: public, for the adapters of others too.

    class TestMyQueue(QueueAdapterContract):
        def open_queue(self, **options): return MyQueueAdapter(self.url, **options)
        def put_raw(self, queue_name, raw): ...

Add `pytest.register_assert_rewrite("pulpo_pool.contracts")` to your conftest.py to see the
values in a failed assertion.
"""

from __future__ import annotations

from pulpo_pool.contracts.history import HistoryContract
from pulpo_pool.contracts.life import LifeContract
from pulpo_pool.contracts.people import PeopleContract
from pulpo_pool.contracts.publishing import PublishingContract
from pulpo_pool.contracts.rescuing import RescuingContract
from pulpo_pool.contracts.settling import SettlingContract
from pulpo_pool.contracts.waiting import WaitingContract

__all__ = ["QueueAdapterContract"]


class QueueAdapterContract(
    PublishingContract,
    SettlingContract,
    WaitingContract,
    RescuingContract,
    HistoryContract,
    PeopleContract,
    LifeContract,
):
    """Every promise of QueueAdapter. See `Bench` for the hooks and what may be switched off."""
