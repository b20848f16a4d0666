"""The root of the tree, and what ends any operation: a defect of ours, or somebody's stop."""

__all__ = [
    "CasError",
    "InternalError",
    "InterruptedOperationError",
]

from typing import ClassVar


class CasError(Exception):
    """Root of all errors that eve-cas raises on purpose.

    Args:
        message: What failed, on which object, expected and actual, and what to do; lower case,
            no full stop.
        **details: Values behind the message (digest, expected, actual, path, ...), rendered with
            ``str`` in the JSON form of the error.
    """

    reference: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1
    grpc_status: ClassVar[str] = "UNKNOWN"
    temporary: ClassVar[bool] = False
    kind: ClassVar[str] = "failed"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def extend(self, addition: str, **details: object) -> None:
        """Say more of what came of it, known only after it was raised; in place.

        Args:
            addition: Appended to the message.
            **details: Added to those that are there, of which none is replaced.
        """
        self.message = f"{self.message}; {addition}"
        self.args = (self.message,)
        self.details = {**details, **self.details}

    def as_document(self) -> dict[str, object]:
        """Give the stable JSON form: reference, kind, message, details."""
        return {
            "reference": self.reference,
            "kind": self.kind,
            "message": self.message,
            "details": {key: str(value) for key, value in self.details.items()},
        }


class InternalError(CasError):
    """A defect of cas; whether the operation took effect is unknown."""

    reference = "internal-error"
    grpc_status = "INTERNAL"


class InterruptedOperationError(CasError):
    """The caller or a signal stopped the operation; it was undone."""

    reference = "interrupted"
    kind = "interrupted"
    exit_code = 130
    grpc_status = "CANCELLED"
    temporary = True
