import pytest
import torch
from forecasting_kit import Batch, Windows, run
from hypothesis import given
from hypothesis import strategies as st
from torch import nn


def numbered(rows, variates):
    return torch.arange(rows * variates, dtype=torch.float32).view(rows, variates)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 20), st.integers(1, 4), st.data())
def test_a_window_is_its_rows(lookback, horizon, more, variates, data):
    rows = lookback + horizon + more
    values, marks = numbered(rows, variates), numbered(rows, 2) / 7
    windows = Windows(values, lookback, horizon, marks=marks)
    assert len(windows) == more + 1
    index = data.draw(st.lists(st.integers(0, more), min_size=1, max_size=5))
    batch = windows[index]
    for i, x, y, m in zip(index, batch.x, batch.y, batch.marks, strict=True):
        assert torch.equal(x, values[i : i + lookback])
        assert torch.equal(y, values[i + lookback : i + lookback + horizon])
        assert torch.equal(m, marks[i : i + lookback + horizon])


@given(st.integers(1, 40), st.integers(1, 50))
def test_blocks_are_every_window_once_in_order(count, size):
    windows = Windows(numbered(count + 6, 3), 4, 3, marks=numbered(count + 6, 1))
    blocks = list(windows.blocks(size))
    every = windows[list(range(count))]
    assert all(len(block.x) == size for block in blocks[:-1])
    for part, expected in enumerate(every):
        assert torch.equal(torch.cat([block[part] for block in blocks]), expected)


def test_blocks_and_windows_share_the_table():
    windows = Windows(numbered(1000, 5), 96, 24)
    block = next(windows.blocks(512))
    assert block.x.untyped_storage().data_ptr() == windows.values.untyped_storage().data_ptr()


def test_columns_and_devices():
    windows = Windows(numbered(20, 4), 4, 2, marks=numbered(20, 1))
    some = windows.columns(slice(1, 3))
    assert torch.equal(some[[5]].x, windows[[5]].x[..., 1:3])
    assert windows.to("meta")[[0, 1]].x.device.type == "meta"
    assert windows.to(torch.float64).values.dtype == torch.float64
    last = Windows(numbered(20, 4), 4, 2, last_only=True)
    assert (last.targets, windows.targets) == (1, 4)
    assert torch.equal(last[[5]].y, windows[[5]].y[..., -1:])


def test_a_loader_takes_whole_batches():
    windows = Windows(numbered(50, 2), 4, 2)
    loader = torch.utils.data.DataLoader(windows, batch_size=8, collate_fn=lambda batch: batch)
    batches = list(loader)
    assert torch.equal(batches[1].x, windows[list(range(8, 16))].x)
    assert sum(len(batch.x) for batch in batches) == len(windows)


@pytest.mark.parametrize(
    ("shape", "marks", "message"),
    [
        ((11,), None, r"values \[11\]: must be rows x variates"),
        ((11, 0), None, r"values \[11, 0\]: must be rows x variates"),
        ((9, 2), None, r"9 rows are fewer than lookback \+ horizon = 6 \+ 4 = 10"),
        ((11, 2), (10, 4), r"marks \[10, 4\]: must be rows x marks with 11 rows"),
        ((11, 2), (11,), r"marks \[11\]: must be rows x marks"),
    ],
)
def test_tables_that_do_not_fit_are_refused(shape, marks, message):
    with pytest.raises(ValueError, match=message):
        Windows(torch.zeros(shape), 6, 4, marks=None if marks is None else torch.zeros(marks))


class Recorder(nn.Module):
    """Forecasts zeros of a given size and keeps what it was called with."""

    def __init__(self, *size, future=False):
        super().__init__()
        self.size, self.future_marks = size, future

    def forward(self, x, marks):
        self.seen = x, marks
        return torch.zeros(len(x), *self.size)


def test_run_hands_over_the_marks_that_the_model_wants():
    batch = Batch(torch.zeros(2, 6, 3), torch.zeros(2, 4, 3), torch.rand(2, 10, 1))
    past, future = Recorder(4, 3), Recorder(4, 3, future=True)
    run(past, batch)
    run(future, batch)
    assert torch.equal(past.seen[1], batch.marks[:, :6])
    assert torch.equal(future.seen[1], batch.marks)
    run(past, batch._replace(marks=None))
    assert past.seen[1] is None


def test_run_keeps_the_last_steps_and_variates():
    batch = Batch(torch.zeros(2, 6, 3), torch.zeros(2, 4, 1))
    assert run(Recorder(9, 3), batch).shape == (2, 4, 1)
    for size in ((3, 3), (4, 0), (4,)):
        with pytest.raises(ValueError, match="must be batch x horizon x variates with horizon 4"):
            run(Recorder(*size), batch)


def test_run_refuses_another_lookback(trained):
    with pytest.raises(ValueError, match="windows of lookback 20: the model takes 24"):
        run(trained.model, Batch(torch.zeros(2, 20, 3), torch.zeros(2, 8, 3)))


def test_run_uses_the_precision_of_the_weights():
    model = nn.Linear(3, 3).bfloat16()
    model.forward = lambda x, marks: nn.functional.linear(x, model.weight, model.bias)
    out = run(model, Batch(torch.rand(2, 6, 3), torch.zeros(2, 4, 3)))
    assert out.dtype == torch.bfloat16
