"""Scenes: geometry, installation, and the simulator that draws them."""
