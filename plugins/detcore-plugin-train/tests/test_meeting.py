"""Processes that torchrun started again find each other, not their predecessors."""

import threading
from datetime import timedelta

import pytest
import torch.distributed as dist
from detcore_train.engine.meeting import agents_store, of_this_start

SOON = timedelta(seconds=20)


def meet(store, count, late=None):
    """The part of the store that each process gets; the ``late`` one begins after the others have looked about."""
    got = {}

    def come(rank):
        if rank == late:
            threading.Event().wait(0.3)
        got[rank] = of_this_start(store, rank, count, SOON)

    threads = [threading.Thread(target=come, args=(rank,), daemon=True) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return got


@pytest.mark.reliability(
    area="processes",
    fault="processes started again by torchrun, whose store still has the addresses of those that are gone",
    outcome="they meet in a part of the store that is theirs alone, whichever comes last",
)
@pytest.mark.parametrize("late", [None, 0, 1, 2])
def test_each_start_has_a_part_of_its_own(late):
    store = dist.HashStore()
    first = meet(store, 3)
    assert len(first) == 3
    first[0].set("address", "gone")
    assert first[2].get("address") == b"gone"
    second = meet(store, 3, late)
    assert len(second) == 3
    assert not second[1].check(["address"])
    second[1].set("address", "here")
    assert second[0].get("address") == second[2].get("address") == b"here"
    assert first[0].get("address") == b"gone"


def test_one_that_does_not_come():
    with pytest.raises(dist.DistStoreError, match=r"processes \[1, 2\] of 3 did not come: timeout"):
        of_this_start(dist.HashStore(), 0, 3, timedelta(seconds=0.2))


def test_only_torchrun_has_such_a_store(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert agents_store(SOON) is None
