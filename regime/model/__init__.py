"""Checkpoints in, quantile forecasts out. Everything that imports torch is in here."""
