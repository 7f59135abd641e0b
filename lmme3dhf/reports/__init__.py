"""Predictions against labels: figures, tables, pages. No model, no torch."""
