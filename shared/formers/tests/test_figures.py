from dataclasses import replace

import pytest
from formers.figures import duration, entry, mebibytes, published, si


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (999.6, "1 k"),
        (4096, "4.1 k"),
        (1.83e10, "18.3 G"),
        (2e15, "2 P"),
    ],
)
def test_si(value, shown):
    assert si(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(8.53e-5, "0.0853 ms"), (0.9999, "1 s"), (12.34, "12.3 s")],
)
def test_duration(seconds, shown):
    assert duration(seconds) == shown


def test_memory_and_entries():
    assert [mebibytes(None), mebibytes(3 << 20)] == ["-", "3 MiB"]
    assert [entry(0.123456), entry(12), entry("x")] == ["0.1235", "12", "x"]


def test_the_year_is_said_once(toy):
    assert published(toy) == "Nowhere 2026"
    assert published(replace(toy, venue="ICLR 2024 (spotlight)")) == "ICLR 2024 (spotlight)"
