"""Comparison with the truth: metric, Fisher information, bounds, scores."""
