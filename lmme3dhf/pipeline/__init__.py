"""Whole jobs in resumable steps: the chain, the demo, ablations, cross-validation."""
