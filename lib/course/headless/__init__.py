"""Lessons executed without a person: side by side, in processes of their own, resumable."""
