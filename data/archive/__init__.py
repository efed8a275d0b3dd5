"""Bars from the public archive of an exchange: which files there are, and how they come here whole."""
