"""Peers that do not answer, or not as they should: exit status 8, UNAVAILABLE."""

__all__ = [
    "AgentError",
    "CallerStalledError",
    "ContainerdMissingError",
    "DaemonError",
    "DaemonUnavailableError",
    "DaemonVersionError",
    "DeadlineExceededError",
    "EventsLostError",
    "QemuImgError",
    "QemuImgMissingError",
    "RateLimitedError",
    "ServiceOpeningError",
    "ServiceUnavailableError",
    "SourceLibraryMissingError",
    "SourceProtocolError",
    "SourceStalledError",
    "SourceUnavailableError",
    "TpmError",
    "TpmUnavailableError",
    "UnavailableError",
    "UntrustedServerError",
]

from cas.errors.base import CasError


class UnavailableError(CasError):
    """A peer that the operation needs does not answer."""

    reference = "unavailable"
    kind = "unavailable"
    exit_code = 8
    grpc_status = "UNAVAILABLE"
    temporary = True


class ServiceUnavailableError(UnavailableError):
    """The cas service does not answer on its socket, or takes no more calls right now."""

    reference = "service-unavailable"


class ServiceOpeningError(ServiceUnavailableError):
    """The cas service was started just now and does not have its store open yet."""

    reference = "service-opening"


class CallerStalledError(UnavailableError):
    """A caller of the service neither sent nor read for long although it was its turn."""

    reference = "caller-stalled"
    grpc_status = "ABORTED"


class DaemonUnavailableError(UnavailableError):
    """containerd does not answer on its socket."""

    reference = "containerd-unavailable"


class DaemonVersionError(UnavailableError):
    """containerd is too old, or runs without a service that the store needs."""

    reference = "containerd-unsuitable"
    temporary = False


class DaemonError(UnavailableError):
    """containerd failed in a way that has no name here; its own words are in the message."""

    reference = "containerd-failed"


class TpmUnavailableError(UnavailableError):
    """There is no TPM, or somebody else keeps it busy."""

    reference = "tpm-unavailable"


class TpmError(UnavailableError):
    """The TPM answered with a failure, or cannot do what is needed."""

    reference = "tpm-failed"
    temporary = False


class DeadlineExceededError(UnavailableError):
    """The answer did not come in time; whether the call took effect is unknown."""

    reference = "deadline-exceeded"
    grpc_status = "DEADLINE_EXCEEDED"


class EventsLostError(UnavailableError):
    """A listener took events too slowly, and some are lost to it."""

    reference = "events-lost"


class ContainerdMissingError(UnavailableError):
    """There is no containerd binary to run."""

    reference = "containerd-missing"
    temporary = False


class QemuImgMissingError(UnavailableError):
    """There is no qemu-img binary to run."""

    reference = "qemu-img-missing"
    temporary = False


class QemuImgError(UnavailableError):
    """qemu-img failed or was stopped at one of its limits; its own words are in the message."""

    reference = "qemu-img-failed"
    temporary = False


class SourceUnavailableError(UnavailableError):
    """A datastore cannot be reached, answers with a failure of its own, or breaks off."""

    reference = "source-unavailable"


class SourceStalledError(UnavailableError):
    """A datastore has sent nothing, or next to nothing, for longer than the limit."""

    reference = "source-stalled"


class RateLimitedError(UnavailableError):
    """A datastore asks for a pause; ``retry_after_seconds`` in the details says how long a one."""

    reference = "rate-limited"
    grpc_status = "RESOURCE_EXHAUSTED"


class SourceProtocolError(UnavailableError):
    """A datastore's answer is not what its protocol allows; asking again does not help."""

    reference = "source-protocol"
    temporary = False


class UntrustedServerError(UnavailableError):
    """A datastore's certificate is of no authority we trust, or of another host; or its SSH key."""

    reference = "server-untrusted"
    temporary = False


class SourceLibraryMissingError(UnavailableError):
    """The datastore's kind needs an extra of the package that is not installed."""

    reference = "source-library-missing"
    temporary = False


class AgentError(UnavailableError):
    """An agent's process ended before its work, or said what no agent says."""

    reference = "agent-failed"
