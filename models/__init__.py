"""Networks and mathematics in plain PyTorch: knows nothing of Optuna, of SQL or of the service."""
