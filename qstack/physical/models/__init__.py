"""The physics library: pure functions from numbers of hardware to probabilities and states."""
