"""The `course` command: its words, the headless runner, what authors need, and the website."""
