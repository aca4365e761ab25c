"""`python -m lib.course …` is `course …`; torchrun starts it that way."""

from lib.course.cli import main

if __name__ == "__main__":
    main()
