"""What `sage evaluate` runs: are regimes, intervals, weights and levels right, and what are they worth?

Each study is a plain function from a configuration to a result; `kept` keeps finished cells for a rerun, `page` draws.
"""
