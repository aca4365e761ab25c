"""The exercises, one module per lesson: l02.EXERCISES is the list for lesson 02."""
