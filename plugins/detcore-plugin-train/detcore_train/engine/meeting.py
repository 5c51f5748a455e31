"""Meeting of the processes that torchrun started, or started again."""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta
from typing import Any

import torch.distributed as dist

#: Seconds between looks at what the others wrote.
_LOOK_EVERY = 0.05


def agents_store(timeout: timedelta) -> Any:
    """The store that torchrun's own process serves for its workers; None where there is none."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(host, port, is_master=False, timeout=timeout)  # type: ignore[attr-defined]


def of_this_start(store: Any, rank: int, count: int, timeout: timedelta) -> Any:
    """A part of a store that only the processes of the same start use.

    torchrun keeps its store when it starts lost processes again, and with it the addresses of those that are
    gone: a process that is quicker than another would connect to the other's predecessor. Numbers of restarts
    differ between machines, so the processes agree on a name: each shows a number that nobody had before, and
    the first one answers that number with the name, until all have confirmed it.

    Args:
        store: Of all starts.
        rank: This process.
        count: The number of processes.
        timeout: How long to wait for the others.

    Raises:
        DistStoreError: The others did not come in time.
    """
    mine = uuid.uuid4().hex
    if rank > 0:
        store.set(f"detcore/shown/{rank}", mine)
        store.wait([f"detcore/name/{mine}"], timeout)
        name = store.get(f"detcore/name/{mine}").decode()
        store.set(f"detcore/confirmed/{name}/{rank}", "yes")
        return dist.PrefixStore(f"detcore/start/{name}", store)  # type: ignore[attr-defined]
    until = time.monotonic() + timeout.total_seconds()
    missing = set(range(1, count))
    while missing:
        for other in sorted(missing):
            if store.check([f"detcore/confirmed/{mine}/{other}"]):
                missing.remove(other)
            elif store.check([f"detcore/shown/{other}"]):  # perhaps by a predecessor, who will not confirm
                store.set(f"detcore/name/{store.get(f'detcore/shown/{other}').decode()}", mine)
        if time.monotonic() > until:
            raise dist.DistStoreError(f"processes {sorted(missing)} of {count} did not come: timeout")
        time.sleep(_LOOK_EVERY if missing else 0)
    return dist.PrefixStore(f"detcore/start/{mine}", store)  # type: ignore[attr-defined]
