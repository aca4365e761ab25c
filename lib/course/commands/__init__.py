"""One file a command of `course`: options, words, exit status. The work is done elsewhere."""
