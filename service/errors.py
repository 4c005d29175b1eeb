"""The errors of the service, independent of HTTP: `api.problems` maps each class to a status, `cli` to an exit code.

ServiceError ├── Overloaded            the queue is full: retry later ├── NotReady              still starting, or the
engine is restarting: retry later ├── Draining              shutting down: retry on another instance ├──
DeadlineExceeded      no answer within the caller's deadline ├── EngineFailed          the engine gave no usable answer
for this image; the reason is logged, not shown ├── ReloadRunning         another reload is already in progress ├──
ModelRejected         the new model of a reload cannot be opened or fails its checks ├── UnknownRequest        feedback
on an answer that is not remembered ├── FeedbackRejected      feedback on an image that has no answer, or with a label
that the model does not have ├── FeedbackGiven         the image already has another label ├── ConfigError           a
setting is unknown or out of range ├── EngineUnavailable     the runtime is not installed, its device is missing, or it
cannot compute this network └── GoldenCheckFailed     the engine does not reproduce the training framework's logits

Errors of the model bundle and of a client's image are in `models.errors`.
"""


class ServiceError(Exception):
    """Root of everything the service raises on purpose. Its text is safe to show."""

    @property
    def detail(self) -> str:
        return str(self)


class _ComeBackLater(ServiceError):
    """`retry_after_s`: seconds after which a retry is likely to succeed, from the measured engine speed."""

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Overloaded(_ComeBackLater):
    """The queue is full."""


class NotReady(_ComeBackLater):
    """The model is still being loaded and checked, or the engine's process is restarting."""


class Draining(_ComeBackLater):
    """The service is shutting down."""


class DeadlineExceeded(ServiceError):
    """The caller's deadline has passed or can no longer be met."""


class EngineFailed(ServiceError):
    """The engine gave no usable answer for this image."""


class ReloadRunning(ServiceError):
    """Another reload is in progress."""


class ModelRejected(ServiceError):
    """The new model cannot be opened or fails its checks; the current one keeps serving."""


class UnknownRequest(ServiceError):
    """No answer with this request id is remembered."""


class FeedbackRejected(ServiceError):
    """The image has no answer, or the model has no such label; the text names it."""


class FeedbackGiven(ServiceError):
    """The image already has another label."""


class ConfigError(ServiceError):
    """A setting is unknown or out of range; the text names it, its value and the allowed values."""


class EngineUnavailable(ServiceError):
    """The engine cannot run here; the text says what to do."""


class GoldenCheckFailed(ServiceError):
    """The serving engine's logits differ from those of the training framework."""


class UsageError(Exception):
    """The arguments are well-formed, but wrong for this system. The text names the argument."""


class AddressUnavailable(Exception):
    """The server cannot listen on an address, or no server answers there. The text gives the address and the reason."""
