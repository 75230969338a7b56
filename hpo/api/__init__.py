"""The service for notebooks and programs: run, study and train as functions that return data."""
