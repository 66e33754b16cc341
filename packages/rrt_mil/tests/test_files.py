"""Bags on disk, label tables, folds, metrics, pictures."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rrt_mil.bags import BagError, FeatureFolder, coordinates_of, join_bags, pad_bags, read_bag
from rrt_mil.data import TableBags, collate
from rrt_mil.metrics import auc, classification_metrics, concordance_index, roc_threshold
from rrt_mil.pictures import attention_picture, save_picture
from rrt_mil.tables import folds, hold_out, read_table, time_bins

from .conftest import write_h5

X = torch.arange(24.0).reshape(6, 4)


@pytest.mark.parametrize(
    "content",
    [
        X,
        X[None],
        X.half(),
        X.bfloat16(),
        X.numpy(),
        {"features": X},
        {"feats": X.numpy(), "coords": torch.arange(12).reshape(6, 2), "patch_size_level0": 512},
    ],
    ids=["tensor", "batch", "half", "bfloat16", "array", "dict", "dict with coordinates"],
)
def test_every_kind_of_pt_file(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "slide.pt")
    bag = read_bag(tmp_path / "slide.pt", width=4)
    assert bag.name == "slide"
    assert bag.features.equal(X)
    if isinstance(content, dict) and "coords" in content:
        assert bag.coordinates is not None
        assert bag.coordinates.shape == (6, 2)
        assert bag.patch == 512


def test_h5_and_npy_files(tmp_path: Path) -> None:
    coords = torch.arange(12).reshape(6, 2)
    path = write_h5(tmp_path / "a.h5", features=X[None], coords=coords[None])
    bag = read_bag(path)
    assert bag.features.equal(X)
    assert bag.coordinates is not None
    assert bag.coordinates.equal(coords)
    np.save(tmp_path / "b.npy", X.numpy())
    assert read_bag(tmp_path / "b.npy").features.equal(X)


def test_invalid_instances_are_refused_or_dropped(tmp_path: Path) -> None:
    bad = X.clone()
    bad[2, 1], bad[4, 0] = torch.nan, torch.inf
    path = write_h5(tmp_path / "a.h5", features=bad, coords=torch.arange(12).reshape(6, 2))
    with pytest.raises(BagError, match=r"2 of 6 instances hold NaN or infinity \(first: 2\)"):
        read_bag(path)
    bag = read_bag(path, drop_invalid=True)
    assert bag.features.equal(X[[0, 1, 3, 5]])
    assert bag.coordinates is not None
    assert bag.coordinates[:, 0].tolist() == [0, 2, 6, 10]
    torch.save(torch.full((3, 4), torch.nan), tmp_path / "b.pt")
    with pytest.raises(BagError, match="an empty bag"):
        read_bag(tmp_path / "b.pt", drop_invalid=True)


class Evil:
    def __reduce__(self) -> tuple:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(0, 4), "an empty bag"),
        (torch.zeros(4), "shape [4], must be [instances, width]"),
        (torch.zeros(2, 3, 4), "shape [2, 3, 4], must be [instances, width]"),
        (torch.zeros(2, 7), "features are 7 wide, expected 4"),
        ({"labels": torch.zeros(2)}, "no 'features'; it has labels"),
        ({"features": X, "coords": torch.zeros(5, 2)}, "6 features but 5 coordinates"),
        ([1, 2], "holds list, not features"),
        (Evil(), "was refused: it is not a plain file of tensors"),
    ],
)
def test_bad_pt_files_are_named(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "slide.pt")
    with pytest.raises(BagError, match=re.escape(message)) as error:
        read_bag(tmp_path / "slide.pt", width=4)
    assert str(tmp_path / "slide.pt") in str(error.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no feature file at"):
        read_bag(tmp_path / "none.pt")
    (tmp_path / "a.h5").write_bytes(b"no hdf5")
    with pytest.raises(BagError, match="damaged or no HDF5 file"):
        read_bag(tmp_path / "a.h5")
    (tmp_path / "a.pt").write_bytes(b"")
    with pytest.raises(BagError, match="damaged or no file of tensors"):
        read_bag(tmp_path / "a.pt")
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(BagError, match=r"\.csv is none of \.pt, \.pth, \.h5"):
        read_bag(tmp_path / "a.csv")
    with pytest.raises(BagError, match="no 'features'; it has coords"):
        read_bag(write_h5(tmp_path / "b.h5", coords=torch.zeros(3, 2)))


def test_padding_and_joining() -> None:
    x, mask = pad_bags([X, X[:2]])
    assert mask.sum(1).tolist() == [6, 2]
    assert x[1, :2].equal(X[:2])
    assert not x[1, 2:].any()
    with pytest.raises(BagError, match=r"bags of \[6, 0\] instances: each needs at least one"):
        pad_bags([X, X[:0]])
    with pytest.raises(BagError, match=r"bags of different widths: \[3, 4\]"):
        pad_bags([X, X[:, :3]])


def test_folders_of_clam_trident_and_the_authors(slides: Path, tmp_path: Path) -> None:
    assert FeatureFolder(slides).find("slide_3") == [slides / "pt_files" / "slide_3.pt"]
    assert FeatureFolder(slides / "h5_files").find("slide_3")[0].suffix == ".h5"
    coordinates, _ = coordinates_of(slides / "pt_files" / "slide_3.pt") or (None, None)
    assert coordinates is not None
    assert coordinates[9].tolist() == [512, 512]
    trident = tmp_path / "job" / "20x_256px_0px_overlap" / "features_uni_v1"
    trident.mkdir(parents=True)
    torch.save(X, trident / "a.pt")
    assert FeatureFolder(tmp_path / "job").find("a") == [trident / "a.pt"]
    other = trident.parent / "features_conch"
    other.mkdir()
    torch.save(X, other / "a.pt")
    with pytest.raises(BagError, match=r"several sets of features, name one: .*features_conch"):
        FeatureFolder(tmp_path / "job")
    assert FeatureFolder(tmp_path / "job" / "20x_256px_0px_overlap" / "features_conch").files
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match=r"no feature files \(.pt, .*\) in .*empty"):
        FeatureFolder(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no folder of features at"):
        FeatureFolder(tmp_path / "nowhere")


def test_patients_are_not_mixed_up(tmp_path: Path) -> None:
    for name in ("TCGA-05-1.a", "TCGA-05-1-01Z.b", "TCGA-05-10-01Z.c"):
        torch.save(X, tmp_path / f"{name}.pt")
    folder = FeatureFolder(tmp_path)
    found = [path.stem for path in folder.find("TCGA-05-1")]
    assert found == ["TCGA-05-1-01Z.b", "TCGA-05-1.a"]
    assert [path.stem for path in folder.find("TCGA-05-10")] == ["TCGA-05-10-01Z.c"]


def test_the_three_kinds_of_tables(slides: Path, write_csv: Callable[[str], Path]) -> None:
    table = read_table(slides / "labels.csv", slides)
    assert (table.task, table.classes, len(table)) == ("classification", ("0", "1"), 12)
    clam = write_csv("case_id,slide_id,label\np,slide_1,LUSC\np,slide_2,LUSC\nq,slide_3,LUAD\n")
    table = read_table(clam, slides)
    assert table.classes == ("LUAD", "LUSC")
    assert [(i.name, i.label) for i in table.items] == [("p", 1), ("p", 1), ("q", 0)]
    assert read_table(clam, slides, classes=["LUSC", "LUAD"]).items[0].label == 0
    survival = read_table(slides / "survival.csv", slides)
    assert survival.task == "survival"
    assert len(survival.classes) == 4
    last = survival.items[-1]
    assert [path.stem for path in last.paths] == ["slide_11", "slide_0"]
    assert (last.time, last.observed) == (7, True)
    joined = TableBags(survival, width=16)[11]
    assert len(joined.features) == 80


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("slide_0,0\nslide_99,1\n", "for 1 of 2: slide_99"),
        ("slide_0,0\nslide_0,1\n", "slide_0 stands there twice"),
        ("slide_0\n", "a row without slide or label: 'slide_0'"),
        ("slide_0,\nslide_1,A\n", "a label is missing"),
        ("colour,label\nred,1\n", "no column of slides"),
        ("Study,ID,Event,Status,WSI\nS,p,soon,1,slide_0.pt\n", "p has no time or status"),
        ("Study,ID,Event,Status,WSI\nS,p,3,1,slide_0.pt\nS,p,4,1,slide_1.pt\n", "p stands there"),
        ("Study,ID,Event,Status,WSI\nS,p,3,1,slide_0.pt;slide_77.pt\n", "for 1 of 1: p"),
        ("Study,ID,Event,Status,WSI\nS,p,3,1,slide_0.pt\n", "1 different event times: 4 time bins"),
    ],
)
def test_bad_tables_are_named(
    text: str, message: str, slides: Path, write_csv: Callable[[str], Path]
) -> None:
    with pytest.raises(BagError, match=re.escape(message)):
        read_table(write_csv(text), slides)


def test_missing_slides_can_be_skipped_and_labels_must_be_known(
    slides: Path, write_csv: Callable[[str], Path]
) -> None:
    path = write_csv("slide_0,A\nslide_99,B\n")
    assert len(read_table(path, slides, skip_missing=True)) == 1
    with pytest.raises(BagError, match="label 'B' is none of A, C"):
        read_table(path, slides, classes=["A", "C"])
    with pytest.raises(BagError, match="no slide has both a label and features"):
        read_table(write_csv("x,A\n"), slides, skip_missing=True)
    with pytest.raises(FileNotFoundError, match="no label file at"):
        read_table(slides / "none.csv", slides)


def test_folds_are_the_authors(slides: Path) -> None:
    """Rows shuffled by Python's generator, then scikit-learn's StratifiedKFold."""
    from sklearn.model_selection import StratifiedKFold

    table = read_table(slides / "labels.csv", slides)
    names, labels = zip(*((i.name, i.label) for i in table.items), strict=True)
    order = list(range(12))
    random.seed(2021)
    random.shuffle(order)
    names, labels = np.array(names)[order], np.array(labels)[order]
    for (train, test), (_, expected) in zip(
        folds(table, 3), StratifiedKFold(3).split(names, labels), strict=True
    ):
        assert {item.name for item in test.items} == set(names[expected])
        assert {i.name for i in train.items} | set(names[expected]) == set(names)


def test_survival_folds_are_the_authors(slides: Path) -> None:
    table = read_table(slides / "survival.csv", slides)
    random.seed(1)
    order, size = random.sample(range(12), 12), round(11 * 0.2)
    expected = [order[f * size : (f + 1) * size] for f in range(4)] + [order[4 * size :]]
    for (_, test), rows in zip(folds(table, 5, seed=1), expected, strict=True):
        assert {i.name for i in test.items} == {table.items[row].name for row in rows}


def test_folds_and_holding_out_keep_patients_whole(
    slides: Path, write_csv: Callable[[str], Path]
) -> None:
    rows = [f"p{i // 2},slide_{i},{i // 2 % 2}" for i in range(12)]
    table = read_table(write_csv("case_id,slide_id,label\n" + "\n".join(rows)), slides)
    for train, test in folds(table, 3):
        assert {i.name for i in train.items}.isdisjoint(i.name for i in test.items)
        assert len(train) + len(test) == 12
        kept, held = hold_out(train, 0.5)
        assert {i.name for i in kept.items}.isdisjoint(i.name for i in held.items)
        assert {i.label for i in held.items} == {0, 1}
    with pytest.raises(BagError, match=r"4 folds: too few patients in class"):
        folds(table, 4)
    with pytest.raises(BagError, match="1 folds of 6 patients"):
        folds(table, 1)
    with pytest.raises(BagError, match=r"val_share=0.1: holds nothing out of 12 items"):
        hold_out(table, 0.1)


def test_time_bins_are_quartiles_of_the_observed_events() -> None:
    edges = time_bins([1, 2, 3, 4, 5, 0.5, 99], [True] * 5 + [False] * 2)
    assert edges.tolist() == pytest.approx([0.5 - 1e-6, 2, 3, 4, 99 + 1e-6])


def test_batches_have_a_mask_only_where_bags_differ(slides: Path) -> None:
    bags = TableBags(read_table(slides / "labels.csv", slides), width=16, keep=True)
    assert collate([bags[0], bags[1]]).mask is None
    assert bags[0] is bags[0]
    shorter = bags[1]._replace(features=bags[1].features[:5])
    batch = collate([bags[0], shorter])
    assert batch.mask is not None
    assert batch.mask.sum(1).tolist() == [40, 5]
    assert batch.labels.tolist() == [0, 1]
    assert join_bags([read_bag(p) for p in bags.table.items[0].paths], "x").name == "slide_0"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_auc_and_threshold_are_scikit_learns(rows: list[tuple[bool, int]]) -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    positive, scores = (np.array(column) for column in zip(*rows, strict=True))
    if positive.all() or not positive.any():
        with pytest.raises(ValueError, match="AUC needs both classes"):
            auc(positive, scores)
        return
    assert auc(positive, scores) == pytest.approx(roc_auc_score(positive, scores))
    false, true, thresholds = roc_curve(positive, scores)
    assert roc_threshold(positive, scores) == thresholds[np.argmin(false - true)]


def test_classification_metrics() -> None:
    from sklearn.metrics import f1_score

    labels = np.array([0, 0, 1, 1, 1])
    chance = np.array([0.1, 0.7, 0.6, 0.8, 0.9])
    both = np.stack([1 - chance, chance], 1)
    found = classification_metrics(labels, both)
    assert found["threshold"] == 0.8
    predicted = (chance >= 0.8).astype(int)
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["auc"] == pytest.approx(5 / 6)
    assert found["f1"] == pytest.approx(f1_score(labels, predicted))
    macro = classification_metrics(labels, both, macro=True)
    assert macro["f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    three = classification_metrics(np.array([0, 1, 2, 2]), np.eye(3)[[0, 1, 2, 1]])
    assert three["accuracy"] == 0.75
    assert "threshold" not in three


def test_concordance_index_by_hand() -> None:
    times, observed = np.array([1.0, 2, 3, 3]), np.array([True, False, True, False])
    # pairs that count: (1,2) (1,3) (1,3') and, at equal times, the event against the censored
    assert concordance_index(times, observed, np.array([4.0, 3, 2, 1])) == 1
    assert concordance_index(times, observed, np.array([1.0, 3, 2, 1])) == pytest.approx(0.375)
    with pytest.raises(ValueError, match="C-index needs an observed event"):
        concordance_index(times, np.zeros(4, bool), times)


def test_pictures_put_patches_in_their_places(tmp_path: Path) -> None:
    corners = torch.tensor([[1024, 512], [1536, 512], [1024, 1536]])
    picture = attention_picture(corners, torch.tensor([0.1, 0.6, 0.3]))
    cell = len(picture) // 3
    assert picture.shape == (3 * cell, 2 * cell, 3)
    centre = picture[cell // 2 :: cell, cell // 2 :: cell]
    red, blue = (180, 4, 38), (59, 76, 192)
    assert tuple(centre[0, 1]) == red
    assert tuple(centre[0, 0]) == blue
    assert tuple(centre[1, 0]) == (255, 255, 255)
    from PIL import Image

    path = save_picture(picture, tmp_path / "maps" / "slide.png")
    assert np.array_equal(np.array(Image.open(path)), picture)
    assert attention_picture(corners[:1], torch.ones(1)).shape[2] == 3
    with pytest.raises(BagError, match="3 coordinates for 2 attention weights"):
        attention_picture(corners, torch.ones(2))
    with pytest.raises(BagError, match="too many for a picture"):
        attention_picture(torch.tensor([[0, 0], [1, 0], [9999, 0]]), torch.ones(3))
