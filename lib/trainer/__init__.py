"""What a run needs around the plain loop of lib.training."""
