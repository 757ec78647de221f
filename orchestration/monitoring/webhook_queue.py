"""What is still to be told to the webhook: kept in order, tried again after growing pauses, and not for ever. Pure."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel

FIRST_PAUSE = 15.0
LONGEST_PAUSE = 300.0
KEPT_SECONDS = 3_600.0
"""What nobody has taken for so long is dropped: by then it is news no more."""
KEPT_MESSAGES = 100


class Message(BaseModel):
    """A text, and since when (epoch seconds) it is to be told."""

    at: float
    text: str


class WebhookQueue(BaseModel):
    """Messages that nobody has taken yet, oldest first. They are told in that order, or dropped."""

    messages: list[Message] = []
    failures: int = 0
    """Attempts since the last one that was a success."""
    due: float = 0.0
    """Before this moment nothing is attempted."""

    def add(self, text: str, now: float) -> None:
        """Add a message."""
        self.messages.append(Message(at=now, text=text))

    def drop_old(self, now: float) -> list[Message]:
        """Remove what is too old or too much; returns it."""
        kept = [message for message in self.messages if now - message.at < KEPT_SECONDS][-KEPT_MESSAGES:]
        dropped = self.messages[: len(self.messages) - len(kept)]
        self.messages = kept
        return dropped

    def deliver(
        self, post: Callable[[str, float], str | None], clock: Callable[[], float], seconds: float
    ) -> str | None:
        """Post what there is, in order, for at most so many seconds; returns why that failed, None if it did not.

        `post` gets a text and how many seconds it may take, and gives the reason of a failure or None.
        """
        began = clock()
        # A due time further away than the longest pause comes from a clock that was set back.
        if self.failures and began < self.due <= began + LONGEST_PAUSE:
            return None
        while self.messages and (left := began + seconds - clock()) > 0:
            reason = post(self.messages[0].text, left)
            if reason is not None:
                self.failures += 1
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures - 1, 10))
                self.due = clock() + pause
                return f"{reason}; attempt {self.failures + 1} in {pause:.0f} s"
            self.failures = 0
            del self.messages[0]
        return None
