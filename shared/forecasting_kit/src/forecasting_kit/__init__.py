"""Data, protocol, metrics and training that forecasting papers share."""

from forecasting_kit.baselines import (
    LinearForecaster,
    RepeatLast,
    SeasonalNaive,
    baselines,
    season_steps,
)
from forecasting_kit.datasets import (
    DATASETS,
    DataSet,
    load_data,
    read_file,
    read_pems,
    read_simbench,
    read_solar,
)
from forecasting_kit.evaluation import BLOCK, evaluate
from forecasting_kit.fitting import Epoch, fit, learning_rate, training_loss
from forecasting_kit.forecaster import Backtest, Evaluation, Forecaster
from forecasting_kit.marks import mark_names, time_marks
from forecasting_kit.metrics import ErrorMeter, Errors, ErrorSums, error_sums, forecast_errors
from forecasting_kit.protocol import (
    KINDS,
    SPLITS,
    Splits,
    prepare,
    protocol_case,
    split_rows,
)
from forecasting_kit.scaling import Scaler
from forecasting_kit.simulation import leader_and_followers, waves
from forecasting_kit.tables import Table, as_table, from_frame, read_csv, sampling_step, to_frame
from forecasting_kit.windows import Batch, Windows, run

__all__ = [
    "BLOCK",
    "DATASETS",
    "KINDS",
    "SPLITS",
    "Backtest",
    "Batch",
    "DataSet",
    "Epoch",
    "ErrorMeter",
    "ErrorSums",
    "Errors",
    "Evaluation",
    "Forecaster",
    "LinearForecaster",
    "RepeatLast",
    "Scaler",
    "SeasonalNaive",
    "Splits",
    "Table",
    "Windows",
    "as_table",
    "baselines",
    "error_sums",
    "evaluate",
    "fit",
    "forecast_errors",
    "from_frame",
    "leader_and_followers",
    "learning_rate",
    "load_data",
    "mark_names",
    "prepare",
    "protocol_case",
    "read_csv",
    "read_file",
    "read_pems",
    "read_simbench",
    "read_solar",
    "run",
    "sampling_step",
    "season_steps",
    "split_rows",
    "time_marks",
    "to_frame",
    "training_loss",
    "waves",
]
