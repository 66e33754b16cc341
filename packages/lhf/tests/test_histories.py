"""Files of histories, noise, parts of data, and training windows."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from lhf import AD, ADConfig, DPTConfig, GridWorld, Histories, read_histories, write_histories
from lhf.data import Drawn, Windows


def test_files_round_trip(noisy: Histories, tmp_path: Path) -> None:
    again = read_histories(write_histories(tmp_path / "h.h5", noisy))
    assert (again.env, again.horizon, again.grid) == (noisy.env, 10, noisy.grid)
    for task, history in noisy.tasks.items():
        for field in dataclasses.fields(history):
            a, b = getattr(history, field.name), getattr(again.tasks[task], field.name)
            assert (a is None and b is None) or (a == b).all(), field.name
    some = read_histories(tmp_path / "h.h5", tasks=list(noisy.tasks)[:1])
    assert list(some.tasks) == list(noisy.tasks)[:1]


def test_layout_is_the_fields(noisy: Histories, tmp_path: Path) -> None:
    write_histories(tmp_path / "h.h5", noisy)
    with h5py.File(tmp_path / "h.h5") as file:
        group = file[str(next(iter(noisy.tasks)))]
        assert {k: (v.shape, v.dtype.name) for k, v in group.items()} == {
            "states": ((200, 10, 2), "int32"),
            "actions": ((200, 10), "int32"),
            "rewards": ((200, 10), "int32"),
            "next_states": ((200, 10, 2), "int32"),
            "dones": ((200, 10), "bool"),
            "optimal_actions": ((10, 200), "int32"),
        }


def test_bad_files_are_named(noisy: Histories, tmp_path: Path) -> None:
    whole = write_histories(tmp_path / "h.h5", noisy).read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.h5 is truncated or not an HDF5 file"):
        read_histories(tmp_path / "cut.h5")
    with pytest.raises(FileNotFoundError, match="no histories at"):
        read_histories(tmp_path / "none.h5")
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["0/rewards"] = np.zeros((4, 2))
    with pytest.raises(ValueError, match="environment 0: no states, actions, next_states"):
        read_histories(tmp_path / "bare.h5")
    with h5py.File(tmp_path / "history_darkroom_PPO_alg-seed0.hdf5", "w") as file:
        for name in ("states", "next_states"):
            file[f"0/{name}"] = np.zeros((40, 2, 2))
        file["0/rewards"] = np.zeros((40, 2))
        file["0/actions"] = np.zeros((39, 2))
    with pytest.raises(ValueError, match=r"environment 0: actions of shape \(39, 2\)"):
        read_histories(tmp_path / "history_darkroom_PPO_alg-seed0.hdf5")
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.attrs["env"] = "darkroom"
    with pytest.raises(ValueError, match="holds no histories"):
        read_histories(tmp_path / "empty.h5")
    with h5py.File(tmp_path / "zero.h5", "w") as file:
        file.attrs["env"] = "darkroom"
        for name in ("states", "actions", "rewards", "next_states"):
            file[f"0/{name}"] = np.zeros((20, 0))
    with pytest.raises(ValueError, match="none empty"):
        read_histories(tmp_path / "zero.h5")


def test_files_of_the_dicp_code_tell_their_family(noisy: Histories, tmp_path: Path) -> None:
    path = write_histories(tmp_path / "history_darkroompermuted_PPO_alg-seed0.hdf5", noisy)
    with h5py.File(path, "a") as file:
        file.attrs.clear()
    assert read_histories(path).grid.kind == "permuted"
    with pytest.raises(ValueError, match="give env and horizon"):
        read_histories(path.rename(tmp_path / "x.h5"))


def test_mixed_and_partial_data(noisy: Histories) -> None:
    assert noisy.shorten(0.5).tasks.keys() == noisy.tasks.keys()
    assert next(iter(noisy.shorten(0.5).tasks.values())).steps == 100
    assert len(noisy.first(0.5)) == len(noisy) // 2
    other = noisy.map(
        lambda task, history: dataclasses.replace(history, rewards=history.rewards + 7)
    )
    for history in noisy.mix(other, 0.3).tasks.values():
        assert (history.rewards.min(0) >= 7).sum() == 3
    with pytest.raises(ValueError, match=r"share=1\.5"):
        noisy.first(1.5)
    with pytest.raises(ValueError, match="3 histories of 200 steps are needed"):
        noisy.mix(noisy.shorten(0.5), 0.3)


@pytest.mark.parametrize("config", [ADConfig, DPTConfig])
def test_windows_are_what_the_history_says(noisy: Histories, config: type) -> None:
    windows = Windows(noisy, config(size=5, transitions=6, dynamics=True))
    assert len(windows) == len(noisy) * 195
    history = noisy.tasks[list(noisy.tasks)[1]]
    batch = windows.batch(torch.tensor([(10 + 3) * 195 + 17]))
    assert (batch["states"][0].numpy() == history.states[17:22, 3]).all()
    assert (batch["actions"][0].numpy() == history.actions[17:22, 3]).all()
    assert (batch["next_states"][0].numpy() == history.next_states[17:22, 3]).all()
    assert (batch["query_states"][0].numpy() == history.states[22, 3]).all()
    target = history.actions[22, 3] if config is ADConfig else history.optimal_actions[3, 22]
    assert batch["target_actions"].item() == target
    row, column = history.next_states[22, 3]
    assert batch["target_next_states"].item() == row * 5 + column
    assert batch["target_rewards"].item() == history.rewards[22, 3]


def test_windows_of_uneven_histories_and_weights(noisy: Histories) -> None:
    first, second, *_ = noisy.tasks
    uneven = noisy.only([first, second]).map(
        lambda task, history: history.cut(50) if task == first else history
    )
    config = ADConfig(size=5, transitions=6)
    assert len(Windows(uneven, config)) == 10 * 45 + 10 * 195
    weights = {first: np.zeros(10), second: np.eye(10)[4]}
    windows = Windows(uneven, config, weights=weights)
    drawn = windows.draw(500, torch.Generator().manual_seed(0))
    low = 450 + 4 * 195
    assert low <= drawn.min() < low + 10
    assert low + 185 < drawn.max() < low + 195


def test_grid_queries_ask_in_every_cell(noisy: Histories) -> None:
    windows = Windows(noisy, DPTConfig(size=5, transitions=6), query="grid")
    draw = torch.Generator().manual_seed(0)
    places = windows.draw(400, draw)
    batch = windows.batch(places, draw)
    assert len(batch["query_states"].unique(dim=0)) == 25
    tasks = np.array(list(noisy.tasks))[
        windows.tasks[torch.div(places, 195, rounding_mode="floor")]
    ]
    world = GridWorld(noisy.grid, tasks.tolist())
    world.cell[:, 0] = (batch["query_states"] @ torch.tensor([5.0, 1.0])).numpy()
    assert (batch["target_actions"].numpy() == world.best_actions()[:, 0]).all()


def test_an_epoch_is_a_function_of_its_seed(noisy: Histories) -> None:
    windows = Windows(noisy, ADConfig(size=5, transitions=6))
    a, b, c = (Drawn(windows, 20, lambda seed=seed: seed) for seed in (1, 1, 2))
    assert a.__getitems__([3, 4])["states"].equal(b.__getitems__([3, 4])["states"])
    assert not a.__getitems__([3, 4])["states"].equal(c.__getitems__([3, 4])["states"])


def test_unfit_histories_are_named(noisy: Histories) -> None:
    with pytest.raises(ValueError, match="transitions=201: the histories of environment"):
        Windows(noisy, ADConfig(size=5, transitions=201))
    with pytest.raises(ValueError, match=r"size=3: environment \d+ has states beyond"):
        Windows(noisy, ADConfig(size=3, transitions=6))
    bare = noisy.map(lambda task, history: dataclasses.replace(history, optimal_actions=None))
    with pytest.raises(ValueError, match="DPT needs optimal_actions"):
        Windows(bare, DPTConfig(size=5, transitions=6))
    with pytest.raises(ValueError, match="only DPT is asked elsewhere"):
        Windows(noisy, ADConfig(size=5, transitions=6), query="grid")
    with pytest.raises(ValueError, match="query='all': must be one of next, history, grid"):
        Windows(noisy, DPTConfig(size=5, transitions=6), query="all")
    with pytest.raises(ValueError, match="query_actions=None"):
        AD(ADConfig(size=5, dynamics=True))(
            *(torch.zeros(1, 2), torch.zeros(1, 3, 2), torch.zeros(1, 3).long()),
            *(torch.zeros(1, 3), torch.zeros(1, 3, 2)),
        )
