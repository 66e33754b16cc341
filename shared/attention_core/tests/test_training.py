from pathlib import Path

import pytest
from attention_core.training import EpochBatches, packaged_configs, resolve_configs
from hypothesis import given
from hypothesis import strategies as st

count = st.integers(0, 40)


def dealt(length: int, size: int, world: int, epoch: int | None, **options: bool) -> list[list]:
    tell = None if epoch is None else lambda: epoch
    return [
        list(EpochBatches(length, size, epoch=tell, rank=r, world_size=world, **options))
        for r in range(world)
    ]


@given(count, st.integers(1, 7), st.integers(1, 4))
def test_evaluation_deals_out_every_sample_exactly_once(length: int, size: int, world: int) -> None:
    everything = [i for batches in dealt(length, size, world, None) for b in batches for i in b]
    assert sorted(everything) == list(range(length))


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_training_gives_each_process_as_many_batches(
    length: int, size: int, world: int, epoch: int, drop: bool
) -> None:
    ranks = dealt(length, size, world, epoch, drop_last=drop)
    assert len({len(batches) for batches in ranks}) == 1
    assert len(ranks[0]) == len(EpochBatches(length, size, drop_last=drop, world_size=world,
                                             epoch=lambda: 0))  # fmt: skip
    assert ranks == dealt(length, size, world, epoch, drop_last=drop)
    if not drop:
        assert {i for batches in ranks for b in batches for i in b} == set(range(length))
    assert all(len(b) == size for batches in ranks for b in batches if drop)


def test_epochs_differ_and_the_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    first, second = dealt(30, 30, 1, 0), dealt(30, 30, 1, 1)
    assert first != second
    monkeypatch.setenv("PL_GLOBAL_SEED", "2")
    assert dealt(30, 30, 1, 0) != first


def test_configurations_are_found_by_name_and_name_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "toy_paper"
    (package / "configs").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "configs" / "toy_s.yaml").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    assert packaged_configs("toy_paper") == {"toy_s": package / "configs" / "toy_s.yaml"}
    path = str(package / "configs" / "toy_s.yaml")
    for given_as in (["--config", "toy_s"], ["--config=toy_s"]):
        resolved = resolve_configs(["fit", *given_as], "toy_paper")
        assert resolved == ["fit", "--config", path, "--run", "runs/toy_s"]
    own = resolve_configs(["fit", "--config", path, "--run", "elsewhere"], "toy_paper")
    assert own == ["fit", "--config", path, "--run", "elsewhere"]
    with pytest.raises(SystemExit, match="it has toy_s"):
        resolve_configs(["fit", "--config", "toy_x"], "toy_paper")
