"""A learner's own copy of the lessons: made without outcomes, brought up to date, and never at the cost of a word."""
