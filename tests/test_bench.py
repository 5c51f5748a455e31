"""The benchmarks' harness; nothing here is timed."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are not installed

from bench import report, roofline
from bench.__main__ import MODULES, rows_of
from bench.harness import Result, measure
from bench.row import Row


def test_every_row_has_us_and_a_title_of_its_own():
    rows = [row for module in MODULES for row in rows_of(module).values()]
    assert all("detcore" in row.contenders for row in rows)
    assert len({row.title for row in rows}) == len(rows)


@pytest.mark.slow
def test_contenders_take_turns_in_processes_of_their_own():
    row = rows_of("startup")["import"]
    assert "mmdet" in row.contenders
    only_us = Row(row.title, {"detcore": row.contenders["detcore"], "mmdet": row.contenders["mmdet"]})
    found = measure("startup", "import", only_us, repeats=2, threads=1, pythons={"mmdet": ""})
    assert set(found) == {"detcore"}
    assert len(found["detcore"].seconds) == 2
    assert found["detcore"].median > 0


@pytest.mark.slow
def test_a_contender_that_cannot_prepare_is_reported_and_the_others_run():
    row = Row("x", {"detcore": rows_of("startup")["import"].contenders["detcore"], "absent": lambda: print})
    found = measure("startup", "import", row, repeats=1, threads=1, pythons={"absent": sys.executable})
    assert "KeyError: 'absent'" in found["absent"].failure
    assert found["detcore"].seconds


@pytest.mark.slow
def test_a_peer_with_a_known_limit_is_not_run():
    row = Row("x", {"detcore": rows_of("startup")["import"].contenders["detcore"], "peer": lambda: print},
              limits={"peer": "needs more memory"})  # fmt: skip
    found = measure("startup", "import", row, repeats=1, threads=1, pythons={})
    assert found["peer"] == Result(failure="needs more memory")


MEMORY = """
from bench.worker import peak

held_before = bytearray(64 * 2**20)
size = 128 * 2**20
print(peak(lambda: bytearray(size)), peak(lambda: bytearray(b"x" * size)), peak(lambda: None))
"""


@pytest.mark.slow
def test_memory_is_that_of_the_run_alone():
    # in a process of its own, as in a benchmark: what other threads of this one free meanwhile would be taken off
    root = Path(__file__).parents[1]
    ran = subprocess.run([sys.executable, "-c", MEMORY], cwd=root, capture_output=True, text=True, check=True)
    once, twice, nothing = map(int, ran.stdout.split())
    size = 128 * 2**20
    assert 0.8 * size < once < 1.2 * size
    assert 1.8 * size < twice < 2.2 * size
    assert nothing < 0.2 * size


def test_the_page_shows_ratios_and_reasons():
    rows = {
        "a": {"detcore": Result((1.0, 2.0, 3.0), 2**30), "peer": Result((4.0, 4.0, 40.0), 2**31)},
        "b": {"detcore": Result((0.001,), 0), "peer": Result(failure="does not fit")},
        "c": {"detcore": Result((5.0,), 0)},
    }
    titles = {
        "a": Row("work A", {}, targets={"peer": 2.0}, max_memory=2**20, why="It is big."),
        "b": Row("work B", {}, targets={"peer": 2.0}),
        "c": Row("work C", {}, max_seconds=6.0, runs=1),
    }
    text = report.page(report.machine(2), titles, rows, 3)
    assert (
        "| work A | 2.00 s | 1.00 GiB | peer | 4.00 s | 2.00 | 2.00 GiB | 2.0 | 2x reached; below 1 MiB **missed** |"
        in text
    )
    assert "| work B | 1 ms | 0 MiB | peer | does not fit |  |  |  |  |" in text
    assert "| work C (1 runs) | 5.00 s | 0 MiB |  |  |  |  |  | below 6.00 s reached |" in text
    assert "- work A: below 1 MiB. It is big." in text
    assert "Roofline" not in text
    assert text.startswith("# Performance\n")


def test_a_run_that_ended_early_goes_on_with_its_file(tmp_path):
    where = report.machine(2)
    record = report.Record.begun(tmp_path, where)
    found = {"detcore": Result((0.25, 0.5), 7), "peer": Result(failure="does not fit")}
    record.add("a/b", found)
    again = report.Record.begun(tmp_path, where, record.path)
    assert again == record
    again.add("a/c", {"detcore": Result((1.0,), 0)})
    assert report.Record.begun(tmp_path, where, record.path).rows["a/b"] == found
    with pytest.raises(ValueError, match=r"was measured on .*'threads': 2.*, this is .*'threads': 1"):
        report.Record.begun(tmp_path, report.machine(1), record.path)


def test_the_roofline_is_a_share_of_the_peak():
    key = next(iter(roofline.HEAVY))
    roof = {"float32": 4e9, "bfloat16": 8e9, key: 1e9}
    text = report.page(report.machine(1), {key: Row("W", {})}, {key: {"detcore": Result((0.5,), 0)}}, 1, roof)
    assert "| W | 1 | 2 | float32 | 50 % |" in text


def test_heavy_rows_exist():
    for key in roofline.HEAVY:
        module, _, name = key.partition("/")
        assert name in rows_of(module)
