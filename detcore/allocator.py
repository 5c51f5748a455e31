"""How the process keeps its memory."""

from __future__ import annotations

import ctypes
import os
import sys

#: Of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Lets the C library keep what is freed, for the whole process, instead of giving it back to the system.

    GNU's C library returns every block above 32 MiB on freeing, and the system hands it out page by page and zeroed
    the next time: for feature maps of that size the faults take as long as a layer does. Kept memory is used again as
    it is. The process does not shrink then, and its peak may be a tenth higher.

    The commands of detcore call it; in a program of your own, call it before the first network is built. Nothing
    happens where an environment variable ``MALLOC_*`` or ``GLIBC_TUNABLES`` decides, with another allocator, or on
    other systems than Linux.

    Returns:
        Whether it is so.
    """
    decided = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if not sys.platform.startswith("linux") or decided or "LD_PRELOAD" in os.environ:
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version") or not hasattr(library, "mallopt"):
        return False
    options = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 * 2**20))
    set_so = [library.mallopt(option, value) == 1 for option, value in options]  # each of them, then
    return all(set_so)
