"""What a test of an answer raises, and a judge turns into points."""


class Wrong(Exception):
    """A property does not hold.

    `message` names the bug and what it usually means, without numbers from the input: a judge shows it too.
    `detail` may show values; only the lesson, where nothing is hidden, prints it.
    """

    def __init__(self, message, detail=""):
        super().__init__(message)
        self.message = message
        self.detail = detail


class Gone(Wrong):
    """The process that an answer lived in is no more: it crashed, or passed a limit. The message says which."""


class NotAttempted(Exception):
    """The answer is still the stub: it raised NotImplementedError with no text."""


class AnswerError(Exception):
    """What a remote handle raises when the learner's code raised over there: only text came back."""

    def __init__(self, kind, text="", line=None):
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text
        self.line = line
