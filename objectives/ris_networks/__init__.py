"""The networks of the RIS objective: each with its search spaces, and how to build it."""
