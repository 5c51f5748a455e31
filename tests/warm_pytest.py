"""Runs pytest in one folder after the other, each in a fork of this process, which has imported torch once.

Started by the Python of a bare environment. Reads lines of JSON ``[folder, file for the output, *arguments]``, and
answers each with a line, the exit code.
"""

import gc
import importlib
import json
import os
import sys

import pytest
import torch  # noqa: F401
import torchvision.transforms.v2  # noqa: F401


def child(folder: str, output: str, *arguments: str) -> None:
    """As ``python -m pytest`` in that folder."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    sys.path[0] = folder
    importlib.invalidate_caches()  # something may have been installed meanwhile
    sys.exit(pytest.main([*arguments]))


gc.freeze()  # pytest collects garbage; what is imported here is none
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        child(*json.loads(line))
    sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
    sys.stdout.flush()
