import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch
from attention_core import CheckpointError, load_state, read_checkpoint, rename, renew_heads
from safetensors.torch import save_file
from torch import nn

WEIGHTS = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_reads_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    save_file(WEIGHTS, path) if suffix == ".safetensors" else torch.save(WEIGHTS, path)
    state = read_checkpoint(path)
    assert state.keys() == WEIGHTS.keys()
    assert state["weight"].equal(WEIGHTS["weight"])


@pytest.mark.parametrize(
    "wrapper", ["state_dict", "model", "params", "params_ema", "params-ema", "model_ema"]
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "netG."])
def test_takes_weights_out_of_wrappers_and_prefixes(wrapper: str, prefix: str) -> None:
    inside = {f"{prefix}{key}": value for key, value in WEIGHTS.items()}
    state = read_checkpoint({wrapper: inside, "epoch": 3, "optimizer": {"state": {}}})
    assert state.keys() == WEIGHTS.keys()


def test_averaged_weights_come_first_unless_another_wrapper_is_named() -> None:
    raw, averaged = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    both = {"params": raw, "params_ema": averaged}
    assert read_checkpoint(both)["w"] == 1
    assert read_checkpoint(both, wrapper="params")["w"] == 0
    with pytest.raises(CheckpointError, match="no entry 'model'; it has params, params_ema"):
        read_checkpoint(both, wrapper="model")


def test_a_prefix_that_not_all_share_stays() -> None:
    assert "module.w" in read_checkpoint({"module.w": torch.ones(1), "b": torch.ones(1)})


def test_training_arguments_beside_the_weights_are_read(tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(lr=1e-3)}, path)
    assert read_checkpoint(path).keys() == WEIGHTS.keys()


class Malicious:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def test_a_pickle_that_runs_code_is_refused_unread(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"w": torch.ones(1), "x": Malicious(f"touch {mark}")}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious(f"touch {mark}")))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(CheckpointError, match=r"was refused.*could run code"):
            read_checkpoint(tmp_path / name)
    assert not mark.exists()


def test_damaged_and_empty_files_say_so(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    (tmp_path / "bad.safetensors").write_bytes(b"not at all")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("cut.pth", "bad.safetensors", "empty.pth"):
        with pytest.raises(CheckpointError, match=name):
            read_checkpoint(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no checkpoint file"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="holds no tensors; its entries: epoch"):
        read_checkpoint({"epoch": 3})


def test_every_misfit_is_named_in_one_error() -> None:
    model = nn.Linear(3, 2)
    bad = {"weight": torch.ones(2, 4), "scale": torch.ones(1)}
    message = (
        r"missing: bias; unexpected: scale; "
        r"of another shape: weight \[2, 4\], the model has \[2, 3\]"
    )
    with pytest.raises(CheckpointError, match=message):
        load_state(model, bad)
    load_state(model, WEIGHTS)
    assert model.weight.equal(WEIGHTS["weight"])


def test_rename_drops_what_maps_to_none() -> None:
    assert list(rename(WEIGHTS, lambda key: None if key == "bias" else f"fc.{key}")) == [
        "fc.weight"
    ]


def test_renewed_heads_are_the_models_own() -> None:
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "classifier": nn.Linear(2, 3)})
    state = {"body.weight": torch.ones(2, 2), "classifier.bias": torch.ones(7)}
    with pytest.warns(UserWarning, match="has 7 classes: the head for 3 is new"):
        renewed = renew_heads(model, state, "classifier.")
    assert renewed["body.weight"] is state["body.weight"]
    assert renewed["classifier.bias"].equal(model["classifier"].bias)
    assert renewed.keys() == {"body.weight", "classifier.weight", "classifier.bias"}
