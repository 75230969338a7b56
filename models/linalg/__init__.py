"""Linear algebra with finite gradients; re-exports the eigendecompositions of N×N matrices."""

from models.linalg.eigh import eigh_broadened as eigh_broadened
from models.linalg.eigh import eigh_signal as eigh_signal
