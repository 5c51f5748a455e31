"""Who writes into the folder of a run, as it says itself in the lock file."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from detcore_train.durable import unseal

#: Characters of a command line that are kept.
_COMMAND_LENGTH = 300
#: In the flags of a process on Linux: it is ending (``PF_EXITING``).
_EXITING = 0x4


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as it says itself.

    Args:
        host: Name of the machine.
        pid: Number of the process there.
        since: When it took the lock, ISO 8601.
        command: Its command line.
        started: When the process began, in the machine's own clock ticks; None where the system does not tell.
        token: Another one for each lock that is taken.
    """

    host: str
    pid: int
    since: str
    command: str
    started: int | None
    token: str

    @classmethod
    def here(cls) -> Holder:
        """This process, now."""
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        found = _process(os.getpid())
        command = shlex.join(sys.argv)[:_COMMAND_LENGTH]
        started = None if found is None else found[0]
        return cls(socket.gethostname(), os.getpid(), since, command, started, uuid.uuid4().hex)

    @classmethod
    def read(cls, path: Path) -> Holder | None:
        """Who a file names; None where it is missing, or anything else than what a holder writes whole."""
        try:
            data = unseal(path.read_bytes())
            return None if data is None else cls(**data)
        except (OSError, ValueError, TypeError):
            return None

    @property
    def process(self) -> tuple[str, int, int | None]:
        """What tells this process from all others."""
        return self.host, self.pid, self.started

    def is_alive(self) -> bool:
        """Whether the process is seen to run on this machine, and not to be ending; False where nobody can tell."""
        if self.host != socket.gethostname():
            return False
        if self.started is not None:
            return _process(self.pid) == (self.started, True)
        if sys.platform == "win32":
            return self.pid == os.getpid()
        try:
            os.kill(self.pid, 0)  # signal 0 only asks
        except ProcessLookupError:
            return False
        except OSError:  # of another user
            return True
        return True

    def __str__(self) -> str:
        """Machine, process, time and command."""
        return f"process {self.pid} on {self.host}, since {self.since}: {self.command}"


def _process(pid: int) -> tuple[int, bool] | None:
    """When a process of this machine began, and whether it runs and is not ending; None where it is not seen."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()  # the name before may hold anything
        return int(fields[19]), fields[0] not in "ZX" and not int(fields[6]) & _EXITING
    except (OSError, ValueError, IndexError):
        return None
