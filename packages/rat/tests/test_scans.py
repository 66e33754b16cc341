"""Files in and out, data in the authors' folders, the command."""

import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pydicom.data
import pytest
import torch
from image_restoration_kit import read_picture, write_picture
from rat import RAT, RATConfig, claims
from rat.cli import main
from rat.data import DrawnSlices, PairedSlices, scores
from rat.paper import PAPER
from rat.scans import read_regions, read_scan, restore_scan, write_regions, write_scan
from rat.train import Training

SMALL = RATConfig(width=4, heads=2, blocks=1, layers=1)


def doing_nothing(**changes: Any) -> RAT:
    model = RAT(RATConfig(**{"width": 4, "heads": 2, "blocks": 1, "layers": 1, **changes}))
    torch.nn.init.zeros_(model.output.weight)
    torch.nn.init.zeros_(model.output.bias)
    return model.eval()


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    content = Path(str(pydicom.data.get_testdata_file("CT_small.dcm"))).read_bytes()
    (tmp_path / "ct.dcm").write_bytes(content)
    return tmp_path / "ct.dcm"


def test_dicom_keeps_hounsfield_header_and_what_lies_beyond_the_window(ct: Path) -> None:
    scan = read_scan(ct, (-160.0, 240.0))
    before = pydicom.dcmread(ct)
    assert scan.values.min() == before.pixel_array.min() + float(before.RescaleIntercept)
    restored = restore_scan(doing_nothing(), scan, torch.zeros(1, 128, 128))
    write_scan(ct.with_name("out.dcm"), restored)
    after = pydicom.dcmread(ct.with_name("out.dcm"))
    assert np.abs(after.pixel_array.astype(int) - before.pixel_array).max() == 0
    assert after.PatientID == before.PatientID
    assert after.PixelSpacing == before.PixelSpacing
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert after.ImageType[0] == "DERIVED"


def test_dicom_four_times_as_large(ct: Path) -> None:
    scan = restore_scan(doing_nothing(scale=4), read_scan(ct), torch.zeros(1, 512, 512))
    after = pydicom.dcmread(write_scan(ct.with_name("big.dcm"), scan))
    before = pydicom.dcmread(ct)
    assert after.pixel_array.shape == (512, 512)
    spacing = float(before.PixelSpacing[0])
    assert float(after.PixelSpacing[0]) == pytest.approx(spacing / 4)
    corner = float(before.ImagePositionPatient[0]) - spacing * 3 / 8
    assert float(after.ImagePositionPatient[0]) == pytest.approx(corner)


@pytest.mark.parametrize("scale", [1, 2])
def test_nifti_keeps_affine_type_and_scaling(tmp_path: Path, scale: int) -> None:
    raw = np.random.default_rng(0).integers(0, 900, (12, 8, 3)).astype(np.int16)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (-10, 5, 7)
    image = nibabel.Nifti1Image(raw, affine)
    image.header.set_slope_inter(0.5, -100)
    nibabel.save(image, tmp_path / "in.nii.gz")
    scan = read_scan(tmp_path / "in.nii.gz")
    assert scan.values.shape == (3, 1, 8, 12)
    regions = torch.zeros(1, 8 * scale, 12 * scale)
    write_scan(tmp_path / "out.nii.gz", restore_scan(doing_nothing(scale=scale), scan, regions))
    out = nibabel.load(tmp_path / "out.nii.gz")
    assert out.get_data_dtype() == np.int16
    assert (out.dataobj.slope, out.dataobj.inter) == (0.5, -100)
    assert out.shape == (12 * scale, 8 * scale, 3)
    if scale == 1:
        np.testing.assert_array_equal(out.affine, affine)
        np.testing.assert_array_equal(out.get_fdata(), 0.5 * raw - 100.0)
    centres = [
        m @ [(n - 1) / 2 for n in s]
        for m, s in ((affine[:3, :3], raw.shape), (out.affine[:3, :3], out.shape))
    ]
    np.testing.assert_allclose(centres[0] + affine[:3, 3], centres[1] + out.affine[:3, 3])


@pytest.mark.parametrize(("bits", "channels"), [(8, 1), (16, 1), (8, 3)])
def test_pictures_keep_their_bits(tmp_path: Path, bits: int, channels: int) -> None:
    write_picture(tmp_path / "in.png", torch.rand(channels, 9, 14), bits=bits)
    scan = read_scan(tmp_path / "in.png")
    model = doing_nothing(channels=3)
    write_scan(tmp_path / "out.png", restore_scan(model, scan, torch.zeros(1, 9, 14)))
    before, after = (read_picture(tmp_path / name) for name in ("in.png", "out.png"))
    assert after.bits == bits
    torch.testing.assert_close(after.color, before.color, rtol=0, atol=1.1 / (2**bits - 1))


def test_region_maps_lie_as_simpleitk_lays_them(ct: Path) -> None:
    maps = torch.arange(128 * 128).view(1, 128, 128) % 7
    write_regions(ct.with_name("maps.nii.gz"), maps, read_scan(ct))
    assert nibabel.load(ct.with_name("maps.nii.gz")).get_fdata()[5, 0] == maps[0, 0, 5]
    assert read_regions(ct.with_name("maps.nii.gz")).equal(maps)
    np.save(ct.with_name("maps.npy"), maps[0].numpy())
    assert read_regions(ct.with_name("maps.npy")).equal(maps)
    np.save(ct.with_name("maps.npy"), maps[0].numpy() - 0.5)
    with pytest.raises(ValueError, match="whole numbers of at least 0"):
        read_regions(ct.with_name("maps.npy"))


def test_files_that_do_not_fit(tmp_path: Path, ct: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file at"):
        read_scan(tmp_path / "none.dcm")
    for name in ("bad.dcm", "bad.nii"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(ValueError, match="or damaged"):
            read_scan(tmp_path / name)
    with pytest.raises(ValueError, match="leave no contrast"):
        read_scan(ct, (5.0, 5.0))
    with pytest.raises(ValueError, match="2 region maps for 1 slices"):
        restore_scan(doing_nothing(), read_scan(ct), torch.zeros(2, 128, 128))
    with pytest.raises(ValueError, match=r"is written as \.dcm"):
        write_scan(tmp_path / "out.png", read_scan(ct))
    nibabel.save(nibabel.Nifti1Image(np.full((4, 4), np.nan), np.eye(4)), tmp_path / "nan.nii")
    with pytest.raises(ValueError, match="NaN or infinite"):
        read_scan(tmp_path / "nan.nii")


def lay_out(root: Path, split: str) -> None:
    for number, (degraded, clean, regions) in enumerate(DrawnSlices(2, side=24)):
        for folder, picture in (("qd", degraded), ("fd", clean)):
            write_picture(root / split / folder / f"s{number}.png", picture)
        scan = read_scan(root / split / "qd" / f"s{number}.png")
        (root / split / "qd_seg_123456").mkdir(exist_ok=True)
        write_regions(root / split / "qd_seg_123456" / f"s{number}.nii.gz", regions[None], scan)


def test_the_authors_folders(tmp_path: Path) -> None:
    lay_out(tmp_path, "test")
    data = PairedSlices(tmp_path, "test")
    expected = DrawnSlices(2, side=24)[1]
    assert data[1].regions.equal(expected.regions)
    torch.testing.assert_close(data[1].clean, expected.clean, rtol=0, atol=0.01)
    assert PairedSlices(tmp_path, "test", regions="slic")[0].regions.shape == (24, 24)
    (tmp_path / "test/qd_seg_123456/s1.nii.gz").unlink()
    with pytest.raises(ValueError, match="no region map for 1 slices, such as s1"):
        PairedSlices(tmp_path, "test")
    write_picture(tmp_path / "test/fd/s0.png", torch.rand(1, 24, 25))
    with pytest.raises(ValueError, match=r"s0: clean of \[24, 25\]"):
        PairedSlices(tmp_path, "test", regions="one")[0]


def test_patches_of_image_and_map_are_cut_and_turned_alike() -> None:
    torch.manual_seed(0)
    data = DrawnSlices(4, side=20, scale=2, noise=0.0, patch=8, augment=True)
    for degraded, clean, regions in data:
        assert degraded.shape == (1, 8, 8)
        small = torch.nn.functional.avg_pool2d(clean, 2)
        torch.testing.assert_close(small, degraded)
        for label in regions.unique():
            assert clean[0][regions == label].unique().numel() == 1
    with pytest.raises(ValueError, match="smaller than the patch, 30"):
        DrawnSlices(1, side=20, patch=30)[0]


def test_the_authors_luma_spans_219_levels() -> None:
    clean, out = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.4)
    found = scores(out, clean)
    assert found["psnr_y"] - found["psnr"] == pytest.approx(20 * np.log10(255 / 219), abs=1e-3)


def run(monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rat", *line.split()])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_commands(
    ct: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ct.parent)
    doing_nothing().save_pretrained(ct.parent / "net")
    assert run(monkeypatch, "segment ct.dcm -o maps --by slic") == 0
    assert run(monkeypatch, "restore ct.dcm -o out -m net --regions maps --device cpu") == 0
    assert pydicom.dcmread("out/ct.dcm").pixel_array.shape == (128, 128)
    assert run(monkeypatch, "restore ct.dcm -o out -m net --segment snake") == 2
    assert "regions by 'snake'" in capsys.readouterr().err
    (ct.parent / "bad.dcm").write_bytes(b"nothing")
    assert run(monkeypatch, "restore bad.dcm ct.dcm -o out -m net --segment one") == 2
    assert "1 of 2 written" in capsys.readouterr().out
    assert run(monkeypatch, "restore ct.dcm -o out -m net --regions .") == 2
    lay_out(ct.parent, "test")
    assert run(monkeypatch, "evaluate . -m net --json") == 0
    assert '"mean"' in capsys.readouterr().out
    assert run(monkeypatch, "show none.pth") == 2
    assert "no checkpoint file at none.pth" in capsys.readouterr().err


def test_training_starts_from_weights_of_its_own_size(tmp_path: Path) -> None:
    RAT(SMALL).save_pretrained(tmp_path / "net")
    module = Training(SMALL, start=str(tmp_path / "net"), steps=10)
    batch = [part[None] for part in DrawnSlices(1, side=16)[0]]
    assert module.loss(module.model(batch[0], batch[2]), batch[1], batch[2]) > 0
    with pytest.raises(ValueError, match="the weights to start from are of"):
        Training(RATConfig(), start=str(tmp_path / "net"))


def test_the_claims_networks_differ_where_they_say() -> None:
    for name, change in claims.NETWORKS.items():
        torch.manual_seed(0)
        model = RAT(SMALL)
        change(model)
        attention = [n for n, _ in model.named_parameters() if "region_attention" in n]
        assert bool(attention) == (name != "NAF")
        assert model(torch.rand(1, 1, 16, 16), torch.zeros(16, 16)).shape == (1, 1, 16, 16)


@pytest.mark.parametrize("claim", [c.id for c in PAPER.claims if c.measure and c.fast])
def test_fast_claims_hold(claim: str, tmp_path: Path) -> None:
    from attention_core import Run

    found = PAPER.claim(claim).measure(Run(output=tmp_path))
    assert found.holds, found.measured
