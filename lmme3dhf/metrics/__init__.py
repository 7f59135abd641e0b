"""Metrics of the paper's Section 5 as pure functions on arrays and labels; no torch, no files."""
