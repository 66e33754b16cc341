import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from image_restoration_kit import PictureError, find_images, quantise, resize, write_picture
from image_restoration_kit.data import (
    FolderImages,
    LmdbImages,
    PairedImages,
    Spoil,
    random_patch,
    write_lmdb,
    write_shrunk,
    write_subimages,
)


def fill(folder: Path, sizes: dict[str, tuple[int, int]], suffix: str = ".png") -> Path:
    folder.mkdir(parents=True)
    for number, (name, size) in enumerate(sizes.items()):
        torch.manual_seed(number)
        write_picture(folder / f"{name}{suffix}", torch.rand(3, *size))
    return folder


@pytest.fixture
def hr(tmp_path: Path) -> Path:
    return fill(tmp_path / "HR", {"a": (24, 36), "b.c": (40, 24)})


@pytest.mark.parametrize("template", ["{}", "{}x4", "{}_LRBI_x4"])
def test_every_layout_pairs(tmp_path: Path, hr: Path, template: str) -> None:
    fill(tmp_path / "LR", {template.format(n): s for n, s in (("a", (6, 9)), ("b.c", (10, 6)))})
    data = PairedImages(hr, tmp_path / "LR", scale=4)
    assert len(data) == 2
    for low, high in data:
        assert [4 * side for side in low.shape[1:]] == list(high.shape[1:])


def test_a_larger_original_is_cut_to_the_scale(tmp_path: Path) -> None:
    high = fill(tmp_path / "HR", {"a": (27, 38)})
    low = fill(tmp_path / "LR", {"a": (6, 9)})
    assert PairedImages(high, low, scale=4)[0][1].shape == (3, 24, 36)


def test_pairs_that_do_not_fit_are_named(tmp_path: Path, hr: Path) -> None:
    low = fill(tmp_path / "LR", {"a": (6, 9), "b.c": (5, 5)})
    data = PairedImages(hr, low, scale=4)
    with pytest.raises(ValueError, match=r"b\.c: 40 x 24 is not 4 times 5 x 5"):
        data[1]
    with pytest.raises(ValueError, match="a: 6 x 9 is smaller than the patch, 8"):
        PairedImages(hr, low, scale=4, patch=8)[0]
    fill(tmp_path / "three", {"a": (6, 9), "b.c": (10, 6), "d": (6, 6)})
    with pytest.raises(ValueError, match=r"2 high-resolution images .* do not pair with 3"):
        PairedImages(hr, tmp_path / "three", scale=4)
    with pytest.raises(ValueError, match="do not pair"):
        PairedImages(hr, low, scale=4, template="{}_small")


def test_the_low_side_is_made_by_bicubic_as_a_file_would_hold_it(hr: Path) -> None:
    low, high = PairedImages(hr, scale=4)[0]
    assert low.equal(quantise(resize(high, Fraction(1, 4))).float() / 255)


def test_small_pictures_grow_to_a_patch(tmp_path: Path) -> None:
    data = PairedImages(fill(tmp_path / "HR", {"a": (10, 50)}), scale=4, patch=8)
    low, high = data[0]
    assert (low.shape, high.shape) == ((3, 8, 8), (3, 32, 32))


def test_patches_stay_aligned_and_cover_every_position_and_symmetry() -> None:
    low = torch.arange(25.0).view(1, 5, 5)
    high = low.repeat_interleave(2, 1).repeat_interleave(2, 2)
    seen = set()
    for _ in range(200):
        small, large = random_patch(low, high, 3, 2)
        assert large[:, ::2, ::2].equal(small)
        seen.add(small[0, 0, 0].item())
    assert seen == {0, 1, 2, 5, 6, 7, 10, 11, 12}


def test_augmentation_turns_both_sides_alike(tmp_path: Path) -> None:
    data = PairedImages(
        fill(tmp_path / "HR", {"a": (16, 16)}), scale=2, patch=8, augment=True, samples=60
    )
    seen = set()
    for low, high in data:
        assert resize(high, 0.5).allclose(low, atol=1e-5)
        seen.add(tuple(low[0].flatten().tolist()))
    assert len(data) == 60
    assert len(seen) == 8


def test_meta_info_chooses_the_images(tmp_path: Path, hr: Path) -> None:
    listing = tmp_path / "meta.txt"
    listing.write_text("a.png (24,36,3)\n\n")
    assert FolderImages(hr, listing).names == ["a"]
    low = fill(tmp_path / "LR", {"a": (6, 9), "b.c": (10, 6)})
    assert len(PairedImages(hr, low, scale=4, meta_info=listing)) == 1
    listing.write_text("missing.png (1,1,3)\n")
    with pytest.raises(FileNotFoundError, match=r"lists 1 images .* such as missing\.png"):
        FolderImages(hr, listing)
    with pytest.raises(FileNotFoundError, match="no folder of images"):
        FolderImages(tmp_path / "none")


def test_lmdb_holds_what_the_folder_holds(tmp_path: Path, hr: Path) -> None:
    folder = tmp_path / "HR.lmdb"
    assert write_lmdb(find_images([hr]), folder) == 2
    assert (folder / "meta_info.txt").read_text() == "a.png (24,36,3) 1\nb.c.png (40,24,3) 1\n"
    images, files = LmdbImages(folder), FolderImages(hr)
    assert images.names == files.names
    for name in images.names:
        assert images.read(name).equal(files.read(name))
    again = pickle.loads(pickle.dumps(images))  # as a worker process gets it
    assert again.read("a").equal(files.read("a"))
    pairs = PairedImages(folder, scale=2, patch=4)
    assert pairs[1][1].shape == (3, 8, 8)


def test_lmdb_messages(tmp_path: Path, hr: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.lmdb"):
        write_lmdb(find_images([hr]), tmp_path / "HR")
    with pytest.raises(FileNotFoundError, match=r"no meta_info\.txt"):
        LmdbImages(tmp_path / "none.lmdb")
    write_lmdb(find_images([hr]), tmp_path / "x.lmdb")
    (tmp_path / "x.lmdb" / "meta_info.txt").write_text("gone.png (1,1,3) 1\n")
    with pytest.raises(KeyError, match="lists gone but does not hold it"):
        LmdbImages(tmp_path / "x.lmdb").read("gone")


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    import lmdb

    folder = tmp_path / "bad.lmdb"
    with lmdb.open(str(folder), map_size=1 << 20) as database, database.begin(write=True) as write:
        write.put(b"a", b"not a picture")
    (folder / "meta_info.txt").write_text("a.png (1,1,3) 1\n")
    with pytest.raises(PictureError, match=r"a in .* is damaged"):
        LmdbImages(folder).read("a")


def test_subimages_cover_the_picture_to_its_border(tmp_path: Path) -> None:
    files = find_images([fill(tmp_path / "HR", {"a": (25, 16)})])
    assert write_subimages(files, tmp_path / "sub", size=16, step=8) == 3
    whole, parts = FolderImages(tmp_path / "HR").read("a"), FolderImages(tmp_path / "sub")
    assert parts.names == ["a_s001", "a_s002", "a_s003"]
    for name, top in zip(parts.names, (0, 8, 9), strict=True):
        assert parts.read(name).equal(whole[:, top : top + 16])
    assert write_shrunk(find_images([tmp_path / "sub"]), tmp_path / "LR", 4) == 3
    pairs = PairedImages(tmp_path / "sub", tmp_path / "LR", scale=4)
    assert pairs[2][0].shape == (3, 4, 4)


def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path, hr: Path) -> None:
    (hr / "c.png").write_bytes(b"not a picture")
    with pytest.raises(PictureError, match=r"c\.png"):
        write_subimages(find_images([hr]), tmp_path / "sub", size=8, step=8)
    assert [p.name for p in tmp_path.iterdir()] == ["HR"]


def test_drawn_pictures_are_the_same_every_time() -> None:
    data: Any = PairedImages("drawn", scale=2)
    assert len(data) == 8
    with pytest.raises(IndexError, match="sample 8 of 8"):
        data[8]
    assert data[3][1].equal(PairedImages("drawn", scale=2)[3][1])
    assert not data[3][1].equal(data[4][1])


def test_spoilt_images_differ_by_what_was_asked_for() -> None:
    clean = PairedImages("drawn", scale=1)
    low, high = clean.pair("drawn1")
    assert (low - high).abs().max() < 1 / 255
    noisy = PairedImages("drawn", scale=1, spoil=Spoil(noise=25)).pair("drawn1")[0]
    assert (noisy - low).std().item() == pytest.approx(25 / 255, rel=0.03)
    again = PairedImages("drawn", scale=1, spoil=Spoil(noise=25)).pair("drawn1")[0]
    assert again.equal(noisy)  # evaluation is the same each time
    errors = [(Spoil(jpeg=quality)(low) - low).square().mean().item() for quality in (5, 30, 95)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-3
    assert Spoil(jpeg=50)(low[:1]).shape == low[:1].shape


def test_noise_in_training_is_drawn_anew_for_each_patch() -> None:
    data = PairedImages("drawn", scale=1, patch=96, spoil=Spoil(noise=25))
    (one, truth), (other, same) = data[0], data[0]
    assert truth.equal(same)
    assert not one.equal(other)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"noise": -1}, "noise=-1: must be"), ({"jpeg": 0}, "jpeg=0: must be")]
)
def test_impossible_spoiling(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spoil(**wrong)
