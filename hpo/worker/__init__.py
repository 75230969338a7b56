"""One worker process: take a ticket, train and report its trial, repeat."""
