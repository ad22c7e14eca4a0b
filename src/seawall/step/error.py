"""How a shipped step fails: by what may be done next. None of their texts holds a path, a parameter or a secret: they
are kept with the run, logged, and shown."""

from __future__ import annotations

from seawall.guard.breaker import Cause
from seawall.workflow import NonRetryable


class StepRefused(NonRetryable):
    """We didn't do it: an argument, an address or a setting doesn't allow it. Nothing was sent, and trying again can't
    help."""


class StepDeclined(NonRetryable):
    """The service answered, and said that what it was asked is wrong. Trying again unchanged can't help.

    Args:
        status: Of HTTP; 0 when the service has none.
        code: The service's own word for it, as ``channel_not_found``; "" when it has none.
    """

    def __init__(self, text: str, *, status: int = 0, code: str = "") -> None:
        self.status = status
        self.code = code
        super().__init__(text)


class StepUnavailable(Exception):
    """The service couldn't do it now; another try may.

    Args:
        cause: For the breaker, which counts it against the service. None: it works, and wants us to wait (429).
        retry_after_s: How long it asks us to wait, at least.
        sent: Whether it may have had its effect: repeat it only with an idempotency key, or where twice is harmless.
        status: Of HTTP; 0 when there was no answer.
    """

    def __init__(
        self, text: str, *, cause: Cause | None, sent: bool, retry_after_s: float = 0.0, status: int = 0
    ) -> None:
        self.cause = cause
        self.sent = sent
        self.retry_after_s = retry_after_s
        self.status = status
        super().__init__(f"{text} (it may have happened)" if sent and not status else text)
