"""What `course train` does: its options made into a run, what is shown on the way, and the folder that is kept."""
