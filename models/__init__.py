"""Networks and mathematics in plain PyTorch, without Optuna, SQL or the service."""
