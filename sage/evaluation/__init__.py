"""Are the forecasts any good? Walk-forward on any bars, against the field's standard volatility models.

Nothing here knows a strategy or money: the target is the log return of each bar, the answer its quantiles.
"""
