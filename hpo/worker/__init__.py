"""One worker process: tickets taken one after the other, each trial trained and reported."""
