"""The lock on the folder of a training run: two runs never write into one folder at once.

The lock is the operating system's (``flock``) on the file ``.lock`` in the folder, so it is free as soon as its holder
has ended, however it ended. What is written into the file only tells who the holder is.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape

from detcore.errors import CheckpointError, DetcoreError
from detcore_train.durable import is_at, seal
from detcore_train.holder import Holder

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
#: Seconds that a holder gets to end, where it is not seen to be alive on this machine.
WAIT = 10.0
_LOOK_EVERY = 0.1
#: What ``flock`` answers where another one holds the lock; some file systems say EACCES.
_HELD_BY_OTHER = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
#: What it answers where a file system has no locks; EBADF: NFS, for files that may only be read.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
#: How often a file is opened that vanishes each time.
_TRIES = 50

#: Descriptors of the locks that this process holds.
_held: set[int] = set()
#: Held while a descriptor is opened or closed: no fork happens between opening it and putting it into ``_held``.
_guard = threading.Lock()


class RunInUseError(DetcoreError, RuntimeError):
    """Another run writes into the folder; names the folder, who it is and since when, and what to do."""


class RunLock:
    """Holds the folder of a run for this process, inside a ``with`` block.

    Processes that are forked meanwhile (those that read images) do not keep the lock: they close its descriptor.

    Args:
        folder: The run's; made if it is not there, and removed again in the end if nothing was put into it.
        wait: Seconds to wait for a holder that is not seen to be alive on this machine: it may be ending.
        tell: Gets warnings, and what is waited for.
    """

    def __init__(
        self, folder: str | Path, *, wait: float = WAIT, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / LOCK
        self.wait, self.tell = wait, tell
        self.holder = Holder.here()
        self._handle: int | None = None
        self._made: list[Path] = []
        self._without = ""

    def __enter__(self) -> RunLock:
        """Takes the lock.

        Raises:
            RunInUseError: Another run has it; nothing was changed.
            CheckpointError: The folder cannot be written to.
        """
        self.holder, self._without = Holder.here(), ""
        try:
            self._wait()
        except BaseException:
            self._remove_folders()
            raise
        if self._without:
            self.tell(
                f"the file system of {self.folder} has no locks ({self._without}): take care yourself that no second "
                "run, on another machine, writes into the folder"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Frees the folder."""
        if self._handle is None or self.holder.pid != os.getpid():  # a forked process has closed it
            return
        with _guard:
            handle, self._handle = self._handle, None
            other = Holder.read(self.path)
            if is_at(handle, self.path) and (other is None or other.token == self.holder.token):
                with suppress(OSError):  # before it is freed: who takes it next finds that the file has gone
                    self.path.unlink()
            _held.discard(handle)
            os.close(handle)
        self._remove_folders()

    def holds(self, folder: str | Path) -> bool:
        """Whether this process holds this very folder at present."""
        mine = self._handle is not None and self.holder.pid == os.getpid()
        return mine and self.folder.absolute() == Path(folder).absolute()

    def confirm(self) -> None:
        """Makes sure that the folder still is this run's. To be called before something in it is replaced.

        The lock file may have been removed meanwhile (with the whole folder, say), or another run may have come
        where the file system does not keep it out. A lock file that is only gone is made again.

        Raises:
            RunInUseError: Another run has taken the folder.
        """
        if self._handle is None or self.holder.pid != os.getpid():
            return
        other = Holder.read(self.path)
        if other is not None and other.token != self.holder.token:
            raise self._taken(other)
        if not is_at(self._handle, self.path):
            with suppress(CheckpointError):  # what is to be written next will say it better
                if not self._take():
                    raise self._taken(Holder.read(self.path))
        elif other is None:
            self._sign(self._handle)

    def _wait(self) -> None:
        until = time.monotonic() + self.wait
        waiting = False
        while not self._take():
            other = Holder.read(self.path)
            if (other is not None and other.is_alive()) or time.monotonic() >= until:
                raise self._in_use(other)
            if not waiting:
                waiting = True
                self.tell(f"{self.folder} is in use; waiting up to {self.wait:g} s for its holder to end")
            time.sleep(_LOOK_EVERY)

    def _take(self) -> bool:
        """Takes the lock, if it is free, and says so in the file."""
        with _guard:
            try:
                handle = self._open()
            except OSError as cause:
                raise CheckpointError(
                    f"{self.path} could not be opened ({cause.strerror}). A run needs a folder that it may write to: "
                    "choose another one with --out"
                ) from cause
            if handle is None:
                return False
            before, self._handle = self._handle, handle
            _held.add(handle)
            if before is not None:
                _held.discard(before)
                os.close(before)
            self._sign(handle)
        return True

    def _sign(self, handle: int) -> None:
        with suppress(OSError):  # it only names the holder
            os.lseek(handle, 0, os.SEEK_SET)
            os.truncate(handle, os.write(handle, seal(asdict(self.holder)).encode()))
            os.fsync(handle)  # other machines see it

    def _open(self) -> int | None:
        """A descriptor of the file, locked; None where another one holds it."""
        for attempt in range(_TRIES):
            self._make_folders()
            try:
                handle = _open(self.path)
            except FileNotFoundError:  # the holder, at its end, removed the folder that it had made
                if attempt == _TRIES - 1:
                    raise
                continue
            try:
                locked = self._lock(handle)
                if locked and is_at(handle, self.path):
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
            if not locked:
                return None  # else the holder, at its end, removed the file
        return None

    def _lock(self, handle: int) -> bool:
        """Whether the lock was free, or the file system has none and nobody is seen to write."""
        try:
            _flock(handle)
        except OSError as error:
            if error.errno in _HELD_BY_OTHER:
                return False
            if error.errno == errno.ESTALE:  # of a network file system: the file was removed meanwhile
                return True
            if error.errno not in _NO_LOCKS:
                raise
            other = Holder.read(self.path)
            if other is not None and other.token != self.holder.token and other.is_alive():
                return False
            self._without = os.strerror(error.errno)
        return True

    def _make_folders(self) -> None:
        missing = []
        folder = self.folder
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            with suppress(FileExistsError):
                folder.mkdir()
                self._made.append(folder)

    def _remove_folders(self) -> None:
        for folder in reversed(self._made):
            with suppress(OSError):  # there is something in it
                folder.rmdir()
        self._made = []

    def _in_use(self, other: Holder | None) -> RunInUseError:
        who, end = self._who(other)
        return RunInUseError(
            f"{self.folder}: another run writes into this folder ({who}). Nothing was changed. Wait until it has "
            f"ended, {end}, or choose another folder with --out"
        )

    def _taken(self, other: Holder | None) -> RunInUseError:
        who, end = self._who(other)
        return RunInUseError(
            f"{self.folder}: another run has taken this folder meanwhile ({who}), so this one stops and leaves it as "
            f"it is. If this one is to go on: {end}, and use the same command with --resume"
        )

    def _who(self, other: Holder | None) -> tuple[str, str]:
        """Who it is, and how to end it."""
        if other is None:
            return f"who it is cannot be read in {LOCK}", "end it"
        if other.process == self.holder.process:
            return f"this very process, {other.pid} on {other.host}, since {other.since}", "end it"
        return str(other), f"end it (`kill {other.pid}` on {other.host} makes it save and stop)"


def locked(run: Path, rank: int, console: Console) -> RunLock | nullcontext[None]:
    """The lock on a run's folder, to be entered: the first process takes it, the others train under it.

    Args:
        run: The folder.
        rank: This process among all of the run.
        console: Gets warnings.
    """
    if rank > 0:
        return nullcontext()

    def warn(text: str) -> None:
        console.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True, highlight=False)

    return RunLock(run, tell=warn)


def _open(path: Path) -> int:
    """A descriptor of a file that is made if need be; never inherited by programs that are started."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY)  # of another user, who was killed; enough for a lock


def _flock(handle: int) -> None:
    """Takes the operating system's lock, if it is free.

    Raises:
        OSError: It is not, or there is none.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "this system has no flock")
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _let_go() -> None:
    """In a forked process: closes what the lock would otherwise live on with, without freeing it."""
    for handle in _held:
        with suppress(OSError):
            os.close(handle)
    _held.clear()
    _guard.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_let_go)
