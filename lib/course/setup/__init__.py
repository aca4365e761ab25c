"""Setting a machine up: what is installed for whom, what it offers, and what to fix."""
