"""Readers of data set formats, one file a family: each a function from a path to cases."""
