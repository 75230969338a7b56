"""The network, its parts and the terms of its loss."""
