import numpy as np
import pandas as pd
import pytest
from forecasting_kit import Table, as_table, from_frame, read_csv, sampling_step, to_frame


def long(frame):
    melted = frame.melt(ignore_index=False, var_name="unique_id", value_name="y")
    return melted.rename_axis("ds").reset_index()[["unique_id", "ds", "y"]]


def test_wide_frame_keeps_values_columns_and_times(frame):
    table = from_frame(frame)
    assert np.array_equal(table.values, frame.to_numpy())
    assert table.columns == ("load0", "load1", "load2")
    assert table.times.equals(frame.index)
    assert table.layout == "wide"
    pd.testing.assert_frame_equal(table.frame(), frame, check_names=False, check_freq=False)


def test_long_frame_in_any_order_is_the_wide_one(frame):
    shuffled = long(frame).sample(frac=1, random_state=0)
    table = from_frame(shuffled)
    assert table.layout == "long"
    assert set(table.columns) == set(frame.columns)
    assert np.array_equal(table.select(frame.columns).values, frame.to_numpy())
    back = table.frame().sort_values(["unique_id", "ds"], ignore_index=True)
    pd.testing.assert_frame_equal(back, long(frame), check_dtype=False)


def test_csv_round_trip_keeps_every_digit(frame, tmp_path):
    frame.to_csv(tmp_path / "a.csv", index_label="date")
    table = read_csv(tmp_path / "a.csv")
    assert np.allclose(table.values, frame.to_numpy(), rtol=1e-14)
    assert table.times.equals(frame.index)
    long(frame).to_csv(tmp_path / "b.csv", index=False)
    assert read_csv(str(tmp_path / "b.csv")).layout == "long"


def test_integer_boolean_and_float32_columns_become_float64(frame):
    mixed = frame.assign(
        load0=np.arange(len(frame)), load1=frame.load1.astype("float32"), load2=frame.load2 > 20
    )
    assert from_frame(mixed).values.dtype == np.float64


def test_columns_that_are_not_text_keep_their_labels(frame):
    table = from_frame(frame.set_axis([10, 20, 30], axis=1))
    assert table.columns == (10, 20, 30)
    assert table.select(["30", 10]).columns == (30, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(load1="much"), r"'load1' is not numeric: 'much' at 2020-01-01"),
        (lambda f: f.set_axis(["a", "b", "a"], axis=1), "column a occurs more than once"),
        (lambda f: f.iloc[:0], "no data: 0 rows"),
        (lambda f: f[[]], "0 columns besides time"),
        (lambda f: f.set_axis([pd.NaT, *f.index[1:]], axis=0), "row 0 has no timestamp"),
    ],
)
def test_bad_frames_are_refused(frame, change, message):
    with pytest.raises(ValueError, match=message):
        from_frame(change(frame))


def test_frames_without_times_are_refused(frame):
    with pytest.raises(TypeError, match="DatetimeIndex or times in the first column"):
        from_frame(frame.reset_index(drop=True))
    with pytest.raises(TypeError, match=r"needs a data frame, .* got ndarray"):
        as_table(frame.to_numpy())
    with pytest.raises(ValueError, match="'date' does not hold times"):
        from_frame(frame.rename_axis("date").reset_index().assign(date="yesterday-ish"))
    with pytest.raises(ValueError, match="'date' does not hold times: its values are numbers"):
        from_frame(frame.reset_index(drop=True).rename(columns={"load0": "date"}))


def test_bad_long_frames_are_refused(frame):
    twice = pd.concat([long(frame), long(frame).iloc[[5]]])
    with pytest.raises(ValueError, match="'load0' has two values at 2020-01-01 05:00"):
        from_frame(twice)
    with pytest.raises(ValueError, match="'y' is not numeric"):
        from_frame(long(frame).assign(y="x"))


def test_bad_csv_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data file at"):
        read_csv(tmp_path / "none.csv")
    (tmp_path / "twice.csv").write_text("date,a,a\n2020-01-01,1,2\n2020-01-02,1,2\n")
    with pytest.raises(ValueError, match="column a occurs more than once"):
        read_csv(tmp_path / "twice.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="not a CSV file"):
        read_csv(tmp_path / "empty.csv")


@pytest.mark.parametrize(
    ("freq", "step"),
    [("h", "h"), ("15min", "15min"), ("D", "D"), ("W-SUN", "W-SUN"), ("MS", "MS"), ("ME", "ME"),
     ("B", "B"), ("s", "s"), ("10min", "10min"), ("2h", "2h"), ("QS-JAN", "QS-OCT")],
)  # fmt: skip
def test_step_of_regular_times_and_what_follows(freq, step):
    times = pd.date_range("2020-01-01", periods=40, freq=freq)
    table = Table(np.zeros((30, 1)), ("a",), times[:30])
    assert sampling_step(times) == step
    assert table.future(10).equals(times[30:])


def test_times_that_do_not_rise_evenly_are_named():
    times = pd.date_range("2020-01-01", periods=10, freq="h")
    with pytest.raises(ValueError, match=r"2020-01-01 03:00:00 \(row 4\) comes after .*04:00"):
        sampling_step(times[[0, 1, 2, 4, 3, 5]])
    with pytest.raises(ValueError, match=r"2020-01-01 01:00:00 \(row 2\) occurs twice"):
        sampling_step(times[[0, 1, 1, 2]])
    with pytest.raises(
        ValueError, match=r"0 days 02:00:00 between .*03:00:00 and .*05:00:00 \(row 4\)"
    ):
        sampling_step(times[[0, 1, 2, 3, 5, 6, 7]])
    with pytest.raises(ValueError, match="two timestamps"):
        sampling_step(times[:1])
    with pytest.raises(ValueError, match="no timestamps"):
        Table(np.zeros((3, 1)), ("a",)).step()


def test_a_gap_is_named_and_can_be_filled(frame):
    frame.iloc[[0, 5, 6], 1] = [np.nan, np.nan, np.inf]
    table = from_frame(frame)
    with pytest.raises(ValueError, match=r"'load1' is nan at 2020-01-01 00:00:00 \(3 such values"):
        table.complete()
    repeated, line = table.complete("ffill").values[:, 1], table.complete("interpolate").values
    assert repeated[0] == frame.iloc[1, 1]
    assert repeated[5] == repeated[6] == frame.iloc[4, 1]
    rise = (frame.iloc[7, 1] - frame.iloc[4, 1]) / 3
    assert np.allclose(line[5:7, 1], frame.iloc[4, 1] + rise * np.array([1, 2]))
    with pytest.raises(ValueError, match="fill='mean': must be 'ffill' or 'interpolate'"):
        table.complete("mean")
    frame["load2"] = np.nan
    with pytest.raises(ValueError, match="no value in column load2"):
        from_frame(frame).complete("ffill")


def test_a_missing_column_is_named(frame):
    with pytest.raises(ValueError, match="no column x; the data has load0, load1, load2"):
        from_frame(frame).select(["load0", "x"])


def test_frames_without_times_are_numbered(waves):
    values = waves(rows=4, variates=2).to_numpy()
    assert list(to_frame(values, ["a", "b"], None).index) == [0, 1, 2, 3]
    assert list(to_frame(values, ["a", "b"], None, "long").ds) == [0, 1, 2, 3] * 2
