"""Which model, how big, how good: counting, sizing, judging."""
