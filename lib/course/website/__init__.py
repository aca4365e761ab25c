"""The static site, made from the lessons as they are committed."""
