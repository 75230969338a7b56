"""The training of a network of the RIS objective: batches, loss, validation and predictions."""
