"""Alpha models, one file each: past bars and a signal in, a conviction in [-1, 1] out; `alpha` says what one is."""
