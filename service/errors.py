"""What can go wrong in the service, without HTTP: `api.problems` gives each class its status, `cli` its exit code.

ServiceError
├── Overloaded            the queue is full: come back later
├── NotReady              still starting, or the engine starts again: come back later
├── Draining              shutting down: come back later, to another instance
├── DeadlineExceeded      no answer within the caller's deadline
├── EngineFailed          the engine gave no usable answer for this image; the reason is logged, not shown
├── ReloadRunning         one model is being put in the place of another already
├── ModelRejected         a model that was to take the place of the serving one is no good
├── ConfigError           a setting is unknown or out of range
├── EngineUnavailable     the runtime is not installed or its device is missing
└── GoldenCheckFailed     the engine does not reproduce the logits of the training framework

Errors of the model bundle and of a client's image come from `models.errors`.
"""


class ServiceError(Exception):
    """Root of everything the service raises on purpose. Its text is safe to show."""

    @property
    def detail(self) -> str:
        return str(self)


class _ComeBackLater(ServiceError):
    """`retry_after_s`: seconds until another try is worth it, from the measured engine speed."""

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Overloaded(_ComeBackLater):
    """The queue is full."""


class NotReady(_ComeBackLater):
    """The model is still being loaded and checked, or the engine's process is started again."""


class Draining(_ComeBackLater):
    """The service is shutting down."""


class DeadlineExceeded(ServiceError):
    """The caller's deadline passed, or cannot be met any more."""


class EngineFailed(ServiceError):
    """The engine gave no usable answer for this image."""


class ReloadRunning(ServiceError):
    """One reload at a time."""


class ModelRejected(ServiceError):
    """The model that was to serve cannot be opened or fails its checks; the one before serves on."""


class ConfigError(ServiceError):
    """A setting is unknown or out of range; the text names it, its value and what is allowed."""


class EngineUnavailable(ServiceError):
    """The engine cannot run here; the text names the way out."""


class GoldenCheckFailed(ServiceError):
    """The serving engine's logits are not those of the training framework."""


class UsageError(Exception):
    """The arguments fit the syntax, but not what is there. The text names the argument."""


class AddressUnavailable(Exception):
    """The server cannot listen where it was told to, or none answers there. The text names the address and why."""
