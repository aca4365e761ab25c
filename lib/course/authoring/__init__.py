"""What authors call: notebooks made ready to commit, bands measured, the learners' copy."""
