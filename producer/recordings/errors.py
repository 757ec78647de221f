"""What is raised when a recording cannot be replayed."""

EXAMPLE = '{"symbol":"BTCUSDT","price":99190.48,"timestamp":"2025-05-08T04:12:38Z"}'
"""A line that is a tick."""


class RecordingError(Exception):
    """The recording cannot be replayed; the text says why and what to do."""


class LineTooLongError(RecordingError):
    """A line is longer than a message may be."""

    def __init__(self, text: str, start: bytes) -> None:
        super().__init__(text)
        self.start = start
        """How the line begins."""


class ResumeError(Exception):
    """The replay cannot go on from where it was; the text says why and what to do."""
