"""A model taught one job, or made for one."""
