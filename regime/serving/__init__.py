"""The model in a process of its own, and forecasts made ahead."""
