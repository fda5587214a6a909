"""What can go wrong, named by what the caller should do about it."""


class TidegateError(Exception):
    """Root of every error this project raises."""


class EventError(TidegateError):
    """The event is bad: dead-letter topic, HTTP 422, never retried.

    Attributes:
        reason: Stable code from `schemas.dead_letter.ReasonCode`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class DependencyError(TidegateError):
    """Kafka or Redis did not answer: back off and retry, HTTP 503."""


class HistoryIncomplete(DependencyError):
    """Histories are being built from the log: what is there of a customer is not all that there was."""


class RightsError(DependencyError):
    """Redis does not let its user do what is needed; the sentence says what and names no host: HTTP 503."""


class SlowAnswerError(DependencyError):
    """An answer took too long; the sentence says what to ask instead and names no host: HTTP 503."""


class QuestionError(TidegateError):
    """A question has too large an answer; the sentence says what to ask instead: HTTP 422."""


class HistoryError(TidegateError):
    """Stored history cannot be trusted or read: rebuild it from the topic."""


class ModelError(TidegateError):
    """A model's artefact or feature list differs from what runs: refuse to start."""


class ConfigError(TidegateError):
    """A setting, mapping or declaration is wrong: say which, and do nothing."""
