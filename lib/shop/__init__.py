"""One company: its records, what its customers say, and its service desk."""
