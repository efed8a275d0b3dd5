"""The trading side: sizing, strategy, the backtest and what it leaves."""
