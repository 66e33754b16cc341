from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from attention_core import CheckpointError, PaperModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    dims: tuple[int, ...] = (3, 4, 2)


class Net(PaperModel):
    variants = {"net_s": NetConfig(), "net_b": NetConfig(dims=(3, 8, 2))}  # noqa: RUF012

    def __init__(self, config: NetConfig) -> None:
        super().__init__(config)
        self.layers = nn.Sequential(
            *(nn.Linear(a, b) for a, b in zip(config.dims, config.dims[1:], strict=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_round_trip_keeps_weights_configuration_and_output(tmp_path: Path) -> None:
    model = Net.from_variant("net_b").eval()
    model.save_pretrained(tmp_path / "net")
    again = Net.from_pretrained(tmp_path / "net")
    assert again.config == NetConfig(dims=(3, 8, 2))
    assert isinstance(again.config.dims, tuple)
    assert not again.training
    x = torch.randn(5, 3)
    assert again(x).equal(model(x))
    assert {p.name for p in (tmp_path / "net").iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }


def test_changes_apply_to_a_variant_and_unknown_names_are_listed() -> None:
    assert Net.from_variant("net_s", dims=(3, 2)).config.dims == (3, 2)
    with pytest.raises(ValueError, match="no variant 'net_x'; it has net_s, net_b"):
        Net.from_variant("net_x")
    with pytest.raises(ValueError, match="no field widths"):
        Net.from_variant("net_s", widths=1)


def test_a_folder_that_lost_a_weight_is_refused(tmp_path: Path) -> None:
    Net(NetConfig()).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("layers.0.bias")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: layers\.0\.bias"):
        Net.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        Net.from_pretrained(tmp_path)


def test_a_failed_save_keeps_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Net(NetConfig())
    model.save_pretrained(tmp_path / "net")
    before = {p.name: p.read_bytes() for p in (tmp_path / "net").iterdir()}

    def full_disk(self: Net, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Net, "_save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space"):
        Net.from_variant("net_b").save_pretrained(tmp_path / "net")
    assert {p.name: p.read_bytes() for p in (tmp_path / "net").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["net"]
