"""Divergence guard: distinguish divergence from overflow; explain, save and replay it."""
