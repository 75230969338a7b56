"""The embedded PostgreSQL server below the home folder."""
