from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from attention_core import GoldenCase
from forecasting_kit import (
    KINDS,
    Scaler,
    Table,
    from_frame,
    mark_names,
    prepare,
    protocol_case,
    split_rows,
    time_marks,
)
from hypothesis import given
from hypothesis import strategies as st

GOLDENS = sorted((Path(__file__).parent / "goldens").glob("*.json"))


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_recorded_cases(path):
    case = GoldenCase(path)
    assert case.failures(protocol_case(case)) == {}


# Windows = rows of the split - lookback - horizon + 1, all by hand from the published borders.
@pytest.mark.parametrize(
    ("split", "rows", "lookback", "horizon", "windows"),
    [
        ("ett-hour", 17420, 96, 720, (7825, 2161, 2161)),
        ("ett-minute", 69680, 96, 96, (34369, 11425, 11425)),
        ("custom", 26304, 96, 96, (18221, 2537, 5165)),
        ("custom", 7588, 96, 336, (4880, 425, 1182)),
        ("solar", 52560, 96, 96, (36601, 5161, 10417)),
        ("solar", 52569, 96, 96, (36607, 5161, 10418)),  # a row belongs to no split
        ("pems", 26208, 96, 12, (15617, 5135, 5135)),
        ((0.8, 0.2, 0.0), 1000, 24, 8, (769, 193, None)),
        ((0.5, 0.25, 0.25), 1000, 24, 8, (469, 243, 243)),
        ((1.0, 0.0, 0.0), 100, 24, 8, (69, None, None)),
    ],
)
def test_split_sizes(split, rows, lookback, horizon, windows):
    table = Table(np.random.default_rng(0).random((rows, 1)), ("a",))
    splits = prepare(table, lookback, horizon, split=split)
    found = tuple(w and len(w) for w in (splits.train, splits.val, splits.test))
    assert found == windows


@given(
    st.sampled_from(["custom", "solar", "pems", (0.6, 0.2, 0.2), (0.9, 0.1, 0.0)]),
    st.integers(60, 5000),
    st.integers(1, 40),
)
def test_no_target_row_belongs_to_two_splits(split, rows, lookback):
    parts = split_rows(split, rows, lookback)
    skipped = 0 if split == "pems" else lookback
    targets = [parts["train"], *(parts[n][skipped:] for n in ("val", "test") if parts[n])]
    ends = [0, *(part.stop for part in targets)]
    assert all(part.start >= end for part, end in zip(targets, ends, strict=False))
    assert ends[-1] <= rows


def test_bad_splits_are_refused():
    with pytest.raises(ValueError, match="split='etth': must be one of custom, ett-hour"):
        split_rows("etth", 1000, 96)
    with pytest.raises(ValueError, match="needs 14400 rows"):
        split_rows("ett-hour", 14399, 96)
    for shares in ((0.7, 0.3), (0.0, 0.5, 0.5), (0.8, 0.2, 0.2), (0.9, -0.1, 0.2)):
        with pytest.raises(ValueError, match="must be shares"):
            split_rows(shares, 1000, 96)


def test_scaled_by_the_training_rows_alone(frame):
    frame.iloc[320:] += 1000
    splits = prepare(from_frame(frame), 24, 8)
    train = frame.iloc[:280]
    assert np.allclose(splits.scaler.mean, train.mean())
    assert np.allclose(splits.scaler.scale, train.std(ddof=0))
    assert splits.train.values.mean(0).abs().max() < 1e-5
    assert splits.test.values[24:].min() > 100


def test_windows_of_later_splits_start_with_the_rows_before(frame):
    splits = prepare(from_frame(frame), 24, 8)
    scaled = torch.from_numpy(splits.scaler.transform(frame.to_numpy()).astype(np.float32))
    first, last = splits.val[[0]], splits.test[[len(splits.test) - 1]]
    assert torch.equal(first.x[0], scaled[280 - 24 : 280])
    assert torch.equal(first.y[0], scaled[280:288])
    assert torch.equal(last.y[0], scaled[392:400])


def test_pems_gaps_are_filled_in_scaled_space_within_each_split():
    values = np.random.default_rng(0).standard_normal((200, 2))
    values[[0, 50, 51, 119, 120, 121, 199], 0] = np.nan
    splits = prepare(Table(values, ("a", "b")), 5, 5, split="pems")
    scaled = (values - np.nanmean(values[:120], 0)) / np.nanstd(values[:120], 0)
    for part, rows in (
        ("train", slice(0, 120)),
        ("val", slice(120, 160)),
        ("test", slice(160, 200)),
    ):
        expected = pd.DataFrame(scaled[rows]).ffill().bfill().to_numpy()
        assert np.allclose(splits[part].values, expected, atol=1e-6)
    assert splits.val.values[0, 0] == splits.val.values[2, 0] != splits.train.values[-1, 0]


def test_features_choose_inputs_and_targets(frame):
    table = from_frame(frame)
    one = prepare(table, 24, 8, features="S", target="load0").train[[3]]
    assert one.x.shape == (1, 24, 1)
    both = prepare(table, 24, 8, features="MS", target="load0")
    batch, every = both.train[[3]], prepare(table, 24, 8).train[[3]]
    assert both.table.names == ("load1", "load2", "load0")
    assert torch.equal(batch.x, every.x[..., [1, 2, 0]])
    assert torch.equal(batch.y, every.y[..., :1])
    assert prepare(table, 24, 8, features="MS").table.names[-1] == "load2"
    with pytest.raises(ValueError, match="features='SM': must be 'M', 'S' or 'MS'"):
        prepare(table, 24, 8, features="SM")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"lookback": 0}, "lookback=0: must be an integer of at least 1"),
        ({"horizon": 0}, "horizon=0: must be an integer of at least 1"),
        ({"horizon": -1}, "horizon=-1: must be an integer"),
        ({"lookback": 390, "horizon": 20}, "400 rows of data are fewer than .* = 410"),
        ({"lookback": 24, "horizon": 60}, "the val split has 64 of them, fewer than .* = 84"),
        ({"scaler": Scaler(np.zeros(2), np.ones(2))}, "knows 2 variates, the data has 3"),
        ({"marks": "fortnight"}, "no time marks for the step 'fortnight'"),
        ({"fill": "zero"}, None),
    ],
)
def test_bad_settings_are_refused(frame, keywords, message):
    if message is None:
        frame.iloc[3, 0], message = np.nan, "fill='zero': must be"
    with pytest.raises(ValueError, match=message):
        prepare(from_frame(frame), **{"lookback": 24, "horizon": 8, **keywords})


def test_unknown_or_empty_split_is_refused(frame):
    splits = prepare(from_frame(frame), 24, 8, split=(0.8, 0.2, 0))
    with pytest.raises(ValueError, match="split 'dev': must be one of train, val, test"):
        splits["dev"]
    with pytest.raises(ValueError, match="leaves no rows for test"):
        splits["test"]


def test_constant_column_has_scale_one():
    values = np.stack([np.full(1000, 0.1), np.arange(1000.0)], 1)
    scaler = Scaler.fit(values)
    assert scaler.scale[0] == 1
    assert np.isclose(scaler.scale[1], np.arange(1000).std())
    assert np.abs(scaler.transform(values)[:, 0]).max() < 1e-14
    with pytest.raises(ValueError, match="nothing to fit a scaler to"):
        Scaler.fit(np.full((3, 2), np.nan))


def test_scaler_round_trips_through_its_file(tmp_path):
    scaler = Scaler.fit(np.random.default_rng(0).random((50, 4)))
    scaler.save(tmp_path / "scaler.json")
    again = Scaler.load(tmp_path / "scaler.json")
    assert np.array_equal(again.mean, scaler.mean)
    assert np.array_equal(again.scale, scaler.scale)
    values = np.random.default_rng(1).random((7, 4))
    assert np.allclose(again.inverse(again.transform(values)), values)
    assert np.array_equal(scaler.select([2, 0]).mean, scaler.mean[[2, 0]])


# 2021-03-31 18:45:30 is a Wednesday, the 90th day of the year, in ISO week 13.
FULL = {
    "second": 30 / 59, "minute": 45 / 59, "hour": 18 / 23, "weekday": 2 / 6, "day": 30 / 30,
    "year-day": 89 / 365, "week": 12 / 52, "month": 2 / 11,
}  # fmt: skip
DAYS = ["weekday", "day", "year-day"]


@pytest.mark.parametrize(
    ("step", "names"),
    [
        *((s, ["second", "minute", "hour", *DAYS]) for s in ("s", "S", "30s")),
        *((s, ["minute", "hour", *DAYS]) for s in ("t", "min", "15min", "10T")),
        *((s, ["hour", *DAYS]) for s in ("h", "H", "2h")),
        *((s, DAYS) for s in ("D", "d", "B", "b")),
        *((s, ["day", "week"]) for s in ("W", "w", "W-SUN")),
        *((s, ["month"]) for s in ("M", "ME", "MS", "m", "Q", "QE-DEC", "QS")),
        *((s, []) for s in ("Y", "YE", "A", "YS-JAN")),
    ],
)
def test_time_marks(step, names):
    marks = time_marks(pd.DatetimeIndex(["2021-03-31 18:45:30"]), step)
    assert np.allclose(marks, [[FULL[name] - 0.5 for name in names]])
    assert mark_names(step) == tuple(names)


def test_marks_of_a_split(frame, waves):
    hourly = prepare(from_frame(waves(freq="15min")), 24, 8).train
    assert hourly.marks.shape[1] == 4  # as the published scripts have it
    own = prepare(from_frame(waves(freq="15min")), 24, 8, marks="auto")
    assert own.train.marks.shape[1] == 5
    expected = time_marks(own.table.times[280 - 24 : 288], "min")
    assert np.allclose(own.val[[0]].marks[0], expected, atol=1e-7)
    assert own.val[[0]].past_marks.shape == (1, 24, 5)
    assert prepare(from_frame(frame), 24, 8, marks=None).train.marks is None
    assert prepare(Table(frame.to_numpy(), tuple("abc")), 24, 8).train.marks is None
    assert prepare(from_frame(waves(freq="YS", rows=200)), 24, 8, marks="auto").test.marks is None
    with pytest.raises(ValueError, match="no time marks for the step '100ms'"):
        mark_names("100ms")


def test_every_kind_has_a_split():
    assert all(split_rows(kind, 60000, 96)["test"] for kind in KINDS)
