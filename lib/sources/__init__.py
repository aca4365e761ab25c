"""Where data come from: packages that carry them, verified, in one cache."""
