"""Bars: from foreign files through quality checks into the catalog, and simulated ones."""
