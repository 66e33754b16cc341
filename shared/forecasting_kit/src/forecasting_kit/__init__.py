"""Data, protocol, metrics and training that forecasting papers share."""
