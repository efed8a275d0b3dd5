"""The soak: the real system for hours, and whether anything leaks, drifts or stalls."""
