"""Linear algebra with safe gradients; hands on the decompositions of a full Hermitian matrix."""

from models.linalg.eigh import eigh_broadened as eigh_broadened
from models.linalg.eigh import eigh_signal as eigh_signal
