"""Divergence told apart from overflow, explained, saved and replayed."""
