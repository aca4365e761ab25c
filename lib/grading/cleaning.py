"""Text from anybody, made fit to keep and to show. It is cleaned once, where it enters: in the records of
lib.grading.grades and in learners' names. Whoever writes it later need not think of it.
"""

import hashlib
import re
import unicodedata

NAME = 200  # characters of a learner's name that are kept as they are
JOINERS = "\u200c\u200d"  # of the characters that cannot be seen, those that Persian, Indic scripts and emoji need
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats (direction marks among them), lone halves, separators
_MADE = re.compile(r"~[0-9a-f]{64}")


def clean(text: object, most: int = 500) -> str:
    """Text of at most so many characters, in which nothing is unseen: what would be is escaped. Clean text stays."""
    text = text if isinstance(text, str) else str(text)
    long = len(text) > most
    text = text[: most - 1] if long else text
    if not text.isprintable():  # which is quick, and false for some that may stay
        text = "".join(escaped(c) for c in text)
        text, long = text[: most - long], long or len(text) > most
    return f"{text[: most - 1]}…" if long else text


def escaped(c: str) -> str:
    """One character, or its escape if nobody would see it."""
    return c.encode("unicode_escape").decode() if unicodedata.category(c) in UNSEEN and c not in JOINERS else c


def learner(name: str) -> str:
    """A learner's name as it is kept: itself if it can be, else what is readable of it and a digest of it whole.

    No two names become one: what looks as if it were made here gets a digest, too. To be asked once, of a name as it
    stands on the disk.
    """
    if name == clean(name, NAME) and not _MADE.search(name):
        return name
    return f"{clean(name, NAME)}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"
