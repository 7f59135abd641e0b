"""Runs, baselines and foreign predictions against one data set: the rows of the paper's tables."""
