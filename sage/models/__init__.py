"""Alpha models, one file each: a signal in, a conviction in [-1, 1] out."""
