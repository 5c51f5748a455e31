"""Files that survive a killed process, a full disk and a loss of power: all of them, or none."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from detcore.errors import CheckpointError

_SEAL = ',\n "sha256": "'
#: What a file system answers that cannot synchronise a folder.
_NO_SYNC = (errno.EINVAL, errno.EACCES, errno.EPERM, errno.ENOTSUP)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk.

    Raises:
        OSError: The disk is full or broken.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except (IsADirectoryError, PermissionError):  # some systems open no folders
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in _NO_SYNC):
            raise
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Waits until every file below a folder is on the disk, and the folders themselves."""
    for below, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(below) / name)
        sync(Path(below))


def is_at(handle: int, path: Path) -> bool:
    """Whether a descriptor's file is the one that stands at the path."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


def digest(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(data: Mapping[str, Any]) -> str:
    """JSON of a mapping, which is not empty, that ends with the SHA-256 of all that stands before it."""
    body = json.dumps(data, indent=1).removesuffix("\n}")
    return f'{body}{_SEAL}{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


def unseal(raw: bytes) -> dict[str, Any] | None:
    """The mapping; None where a byte of it was changed or is missing."""
    body, mark, rest = raw.rpartition(_SEAL.encode())
    if not mark or rest != f'{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode():
        return None
    return dict(json.loads(body + b"\n}"))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into that has its name only once it is complete and on the disk.

    Args:
        path: The name; nothing stands there yet, or a folder that is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{path.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        sync_folder(temporary)
        remove(path)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove(path: Path) -> None:
    """Removes a folder so that nobody ever sees half of it under its name."""
    if path.exists():
        retired = path.with_name(f".old-{path.name}-{os.getpid()}")
        shutil.rmtree(retired, ignore_errors=True)
        os.replace(path, retired)
        shutil.rmtree(retired, ignore_errors=True)


@contextmanager
def disk_errors(what: str, remedy: str) -> Iterator[None]:
    """Turns what a full or broken disk raises into an error of ours.

    Args:
        what: What cannot be written.
        remedy: What is still intact, and what to do.

    Raises:
        CheckpointError: Something could not be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as cause:
        why = getattr(cause, "strerror", None) or str(cause)
        raise CheckpointError(f"{what} could not be written ({why}). {remedy}") from cause
