"""Data, metrics, tiling and commands that image restoration papers share."""
