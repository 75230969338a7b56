"""Planted situations: small tasks, each with a fault or an oddity and the expected verdict."""

from situations import benign, courses, numerics, ris, states
from situations.task import SITUATIONS

__all__ = ["SITUATIONS", "benign", "courses", "numerics", "ris", "states"]
