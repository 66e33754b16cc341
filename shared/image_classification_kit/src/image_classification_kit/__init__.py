"""Data, recipe, metrics and commands that image classification papers share."""
