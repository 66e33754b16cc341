import time

import numpy as np
import pandas as pd
import pytest
from forecasting_kit import (
    DATASETS,
    KINDS,
    leader_and_followers,
    load_data,
    prepare,
    read_file,
    read_pems,
    read_simbench,
    read_solar,
)


def test_registry_is_complete():
    published = {"ETTh1", "ETTh2", "ETTm1", "ETTm2", "ECL", "Traffic", "Weather", "Exchange",
                 "ILI", "Solar", "PEMS03", "PEMS04", "PEMS07", "PEMS08"}  # fmt: skip
    assert published <= DATASETS.keys()
    assert {data.kind for data in DATASETS.values()} == set(KINDS)
    assert DATASETS["Solar"].marks is None
    assert DATASETS["Weather"].marks == "h"


@pytest.mark.parametrize("kind", ["ett-hour", "custom", None])
def test_csv_kinds(kind, tmp_path, waves):
    frame = waves(rows=50, variates=3).set_axis(["OT", "HUFL", "HULL"], axis=1)
    (tmp_path / "ETT-small").mkdir()
    path = tmp_path / "ETT-small/ETTh1.csv"
    frame.to_csv(path, index_label="date")
    table = read_file(path, kind)
    last = ("HUFL", "HULL", "OT") if kind == "custom" else ("OT", "HUFL", "HULL")
    assert table.names == last
    assert np.allclose(table.values, frame[list(last)])
    assert table.times.equals(frame.index)
    assert load_data("ETTh1", root=tmp_path).names == ("OT", "HUFL", "HULL")


def test_solar(tmp_path, waves):
    values = waves(rows=30, variates=4).to_numpy()
    path = tmp_path / "solar_AL.txt"
    np.savetxt(path, values, delimiter=",", fmt="%.17g")
    table = load_data(path)
    assert np.allclose(table.values, values, rtol=1e-14)
    assert table.times is None
    path.write_text("1.0,2.0\n3.0,many\n")
    with pytest.raises(ValueError, match=r"not a table of comma-separated numbers.*many"):
        read_solar(path)


def test_pems_is_the_first_channel(tmp_path):
    data = np.random.default_rng(0).random((40, 5, 3))
    np.savez(tmp_path / "PEMS08.npz", data=data)
    table = load_data(tmp_path / "PEMS08.npz")
    assert np.array_equal(table.values, data[..., 0])
    assert prepare(table, 4, 2, split="pems").train.values.shape == (24, 5)


def test_pems_refuses_pickles_and_other_layouts(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (pytest.fail, ("code of the file was run",))

    path = tmp_path / "a.npz"
    np.savez(path, data=np.array([[[Harmful()]]], dtype=object))
    with pytest.raises(ValueError, match=r"refused.*allow_pickle"):
        read_pems(path)
    np.savez(path, flow=np.zeros((3, 2, 1)))
    with pytest.raises(ValueError, match="no entry 'data', only flow"):
        read_pems(path)
    np.savez(path, data=np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"float64 \[3, 2\]: must be numbers, steps x sensors"):
        read_pems(path)
    path.write_bytes(b"not a zip file")
    with pytest.raises(ValueError, match="refused"):
        read_pems(path)


def test_missing_data_sets_say_where_they_are_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Traffic: no file at .*traffic/traffic.csv"):
        load_data("Traffic", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="no data set of that name; known are ETTh1"):
        load_data("traffik")
    (tmp_path / "a.csv").write_text("date,a\n2020-01-01,1\n")
    with pytest.raises(ValueError, match="kind='ett': must be one of custom, ett-hour"):
        load_data(tmp_path / "a.csv", kind="ett")


def test_published_files_may_lack_rows(tmp_path, waves):
    (tmp_path / "weather").mkdir()
    frame = waves(rows=60, freq="10min")
    path = tmp_path / "weather/weather.csv"
    frame.drop(index=frame.index[[20, 21]]).to_csv(path, index_label="date")
    table = load_data("Weather", root=tmp_path)
    assert table.step() == "10min"
    assert prepare(table, 4, 2, marks="auto").train.marks.shape[1] == 5
    with pytest.raises(ValueError, match="evenly spaced"):
        load_data(path).step()


def test_simulated_series_by_name():
    table = load_data("waves")
    assert table.step() == "h"
    assert np.array_equal(table.values, load_data("waves").values)


def test_followers_repeat_their_leader():
    values = leader_and_followers(lag=24, noise=0.0).values
    assert np.allclose(np.abs(values[24:, 1:]), np.abs(values[:-24, :1]))
    own = np.corrcoef(values[24:, 3], values[:-24, 3])[0, 1]
    assert abs(own) < 0.1


def test_simbench_hourly_is_the_mean_of_four_quarters():
    quarters, hours = read_simbench("15min"), read_simbench()
    assert quarters.values.shape == (35136, 138)
    assert hours.values.shape == (8784, 138)
    assert np.isfinite(quarters.values).all()
    assert np.allclose(hours.values[100], quarters.values[400:404].mean(0))
    assert (quarters.step(), hours.step()) == ("15min", "h")
    assert hours.times[-1] == pd.Timestamp("2016-12-31 23:00")
    with pytest.raises(ValueError, match="step='D': must be 'h' or '15min'"):
        read_simbench("D")


def test_a_year_of_quarter_hours_loads_within_three_seconds(tmp_path):
    path = tmp_path / "loads.csv"
    rows = [",".join(map(str, row)) for row in np.random.default_rng(0).random((96, 138)).round(6)]
    times = pd.date_range("2016-01-01", periods=35136, freq="15min").astype(str)
    header = ",".join(["date", *(f"load{i}" for i in range(138))])
    lines = (f"{time},{rows[i % 96]}" for i, time in enumerate(times))
    path.write_text("\n".join([header, *lines]))
    start = time.process_time()
    splits = prepare(load_data(path), 96, 96)
    batch = splits.train[list(range(32))]
    seconds = time.process_time() - start
    assert batch.x.shape == (32, 96, 138)
    assert seconds < 3
