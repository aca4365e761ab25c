"""Writing fast and for many: lib.generation's results, sooner."""
