"""What is freed is used again."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from detcore.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory())
def work():
    bytes([49]) * 2**26  # 16,384 pages
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(what, **variables):
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_", "LD_PRE"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what], env=environment | variables, capture_output=True, text=True, check=True
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about GNU's C library")
def test_memory_is_used_again():
    kept, faults = run("keep")
    if kept == "False":
        pytest.skip("another C library")
    assert int(faults) < 32
    assert int(run("not")[0]) > 5 * 32 - 1  # as it would be; pages may be of 2 MiB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about GNU's C library")
def test_what_the_environment_says_stays():
    assert run("keep", MALLOC_ARENA_MAX="2")[0] == "False"
