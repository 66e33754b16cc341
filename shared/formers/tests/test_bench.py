import json
from pathlib import Path

import pytest


def stored():
    return json.loads(Path("runs/toy/bench.json").read_text())["records"]


def test_measures_both_sides_and_records_them(formers):
    code, out, _ = formers("bench", "toy", "--rounds", "3", "--sizes", "8,32", "--batch", "2")
    assert code == 0
    [record] = stored()
    ours, theirs = record["sides"]
    assert [ours["name"], theirs["name"]] == ["toy_s", "a wide linear map"]
    # 2 x 8 x 16 multiply-adds, twice, for each token of a batch of 2.
    assert [(p["size"], p["flops"]) for p in ours["points"]] == [(8, 8192), (32, 32768)]
    assert ours["growth"]["flops"] == pytest.approx(1)
    for point in ours["points"]:
        assert point["throughput"] == pytest.approx(2 / point["latency"])
        share = point["flops"] / point["latency"] / record["matmul_rate"]
        assert point["matmul_share"] == pytest.approx(share)
    for ratio in record["speedup"]:
        assert ratio["least"] <= ratio["median"] <= ratio["most"]
    assert record["hardware"] in out
    assert "a wide linear map takes" in out
    assert Path("runs/toy", record["figure"]).read_bytes().startswith(b"\x89PNG")


def test_memory_is_what_the_largest_moment_needs(toy, tmp_path):
    from importlib.metadata import EntryPoint

    from formers.bench import Circumstances, _memory

    entry = EntryPoint("toy", "toy.paper:PAPER", "formers.papers")
    how = Circumstances(variant="toy_s")
    small, large = _memory(toy, entry, how, [(0, 16), (0, 2**19)])
    hidden = 2**19 * 16 * 4  # two tensors of this size live at once: before and after the GELU
    assert 2 * hidden <= large <= 4 * hidden
    assert small < hidden


def test_backward_costs_more_and_stands_beside(formers, monkeypatch):
    monkeypatch.setattr("formers.bench._memory", lambda *arguments: [None] * len(arguments[-1]))
    formers("bench", "toy", "--rounds", "3", "--sizes", "8")
    formers("bench", "toy", "--rounds", "3", "--sizes", "8", "--backward", "--dtype", "bfloat16")
    formers("bench", "toy", "--rounds", "3", "--sizes", "8")
    backward, forward = sorted(stored(), key=lambda r: -r["sides"][0]["points"][0]["flops"])
    # Three products instead of one per layer, but none for the gradient of the input.
    assert backward["sides"][0]["points"][0]["flops"] == 5 * 4096 // 2
    assert (backward["backward"], forward["backward"]) == (True, False)
    assert backward["figure"] != forward["figure"]
    assert forward["sides"][0]["growth"] == {}


def test_a_busy_machine_is_told(formers, monkeypatch):
    monkeypatch.setattr("formers.bench._memory", lambda *arguments: [None] * len(arguments[-1]))
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.0, 0.0))
    code, _, error = formers("bench", "toy", "--rounds", "3", "--sizes", "8")
    assert code == 0
    assert error.startswith("warning: this machine is busy (load 1000.0 on ")
    assert stored()[0]["load"] == 1000
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    assert "busy" not in formers("bench", "toy", "--rounds", "3", "--sizes", "8")[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--variant", "toy_xl"], "toy has no variant 'toy_xl'; it has toy_s, toy_loud, toy_l"),
        (["--dtype", "int8"], "--dtype int8: must be one of float32, bfloat16, float16"),
        (["--sizes", "1,two"], "--sizes 1,two: must be integers of at least 1, such as 64,128,256"),
        (["--sizes", "0"], "--sizes 0: must be integers of at least 1, such as 64,128,256"),
    ],
)
def test_bad_usage_is_one_line(formers, options, message):
    code, _, error = formers("bench", "toy", *options)
    assert code == 2
    assert error == f"error: {message}\n"


def test_a_paper_without_a_benchmark(formers, toy):
    object.__setattr__(toy, "benchmark", None)
    code, _, error = formers("bench", "toy")
    assert code == 2
    assert error == "error: toy names no benchmark\n"


def test_a_size_that_the_model_refuses(formers, toy):
    def inputs(config, size, batch):
        raise ValueError(f"{size} tokens: must be even")

    object.__setattr__(toy, "inputs", inputs)
    code, _, error = formers("bench", "toy", "--sizes", "7")
    assert code == 2
    assert error.splitlines()[-1] == "error: 7 tokens: must be even"
