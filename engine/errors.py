"""Every error the engine raises: one class each, with a stable ``code``.

``code`` is part of the public contract. It is the ``google.rpc.ErrorInfo.reason`` of a failed RPC, the ``code`` of a
failed item in a batch, and what scripts should test; the text is for people and may improve. Each class also derives
from the built-in it refines, so that ``except ValueError`` keeps working.

The text says what was expected, what was got, and what to do.
"""

from __future__ import annotations

__all__ = [
    "AddressUnavailableError",
    "BatchTooLargeError",
    "CodesetError",
    "DateOutsideCoverageError",
    "DeadlineExceededError",
    "GroupingFailedError",
    "InternalError",
    "InvalidDateError",
    "InvalidFieldError",
    "MalformedMessageError",
    "MessageTooLargeError",
    "MissingFieldError",
    "PackCorruptError",
    "PackExistsError",
    "PackIncompatibleError",
    "PackNotFoundError",
    "PermissionDeniedError",
    "PoaLengthError",
    "RpcFailedError",
    "ServiceUnavailableError",
    "SourceDigestError",
    "SourceFormatError",
    "SourceUnavailableError",
    "TooManyRequestsError",
    "UnauthenticatedError",
    "UnknownCodeError",
    "UnknownModelError",
    "UnknownReleaseError",
    "UnknownSystemError",
    "UnknownVersionError",
    "all_errors",
]


class CodesetError(Exception):
    """Base of all errors of this package. ``code`` is stable, the text is not.

    ``field`` names the field of the claim or request that is at fault, as in the API ("poa"); empty when no
    single field is, or when the code says it already. ``request_id``: of the call that failed, where one did; the
    server's log has it too.
    """

    code = "CODESET_ERROR"
    request_id = ""

    def __init__(self, *args: object, field: str = "") -> None:
        super().__init__(*args)
        self.field = field

    def __str__(self) -> str:
        # LookupError subclasses would print the repr of their argument.
        return str(self.args[0]) if self.args else self.code


class UnknownSystemError(CodesetError, LookupError):
    """The code system id or URI is none that this library holds a pack of."""

    code = "UNKNOWN_SYSTEM"


class UnknownReleaseError(CodesetError, LookupError):
    """The system is known, this release of it is not loaded."""

    code = "UNKNOWN_RELEASE"


class UnknownVersionError(CodesetError, LookupError):
    """The grouper version is malformed or not loaded."""

    code = "UNKNOWN_VERSION"


class UnknownModelError(CodesetError, LookupError):
    """The risk adjustment model is none that this library holds a pack of, for any payment year."""

    code = "UNKNOWN_MODEL"


class UnknownCodeError(CodesetError, LookupError):
    """A hierarchy question about a code that the release does not contain."""

    code = "UNKNOWN_CODE"


class GroupingFailedError(CodesetError, RuntimeError):
    """The grouper's tables have no row for the claim, where the CMS software fails too."""

    code = "GROUPING_FAILED"


class InvalidDateError(CodesetError, ValueError):
    """Not a calendar date in the form CCYYMMDD."""

    code = "INVALID_DATE"


class DateOutsideCoverageError(CodesetError, ValueError):
    """A real date that no loaded release of the system covers."""

    code = "DATE_OUTSIDE_COVERAGE"


class InvalidFieldError(CodesetError, TypeError, ValueError):
    """A field of a claim or request has the wrong type or an impossible value; the text names the field."""

    code = "INVALID_FIELD"


class MissingFieldError(CodesetError, ValueError):
    """The claim lacks a field that its codes make necessary; ``field`` names it."""

    code = "MISSING_FIELD"


class PoaLengthError(CodesetError, ValueError):
    """``poa`` must be empty or have one character per diagnosis."""

    code = "POA_LENGTH_MISMATCH"


class BatchTooLargeError(CodesetError, ValueError):
    """More items in one request than the server's documented limit."""

    code = "BATCH_TOO_LARGE"


class PackNotFoundError(CodesetError, LookupError):
    """No pack where one was expected: not built yet, or another directory meant."""

    code = "PACK_NOT_FOUND"


class PackExistsError(CodesetError, ValueError):
    """A pack is immutable: writing over a published one needs to be asked for."""

    code = "PACK_EXISTS"


class PackCorruptError(CodesetError, ValueError):
    """A file of a pack is missing, truncated, altered or out of bounds. Nothing of the pack was used."""

    code = "PACK_CORRUPT"


class PackIncompatibleError(CodesetError, ValueError):
    """The pack was written in a format that this version of the engine does not read."""

    code = "PACK_INCOMPATIBLE"


class SourceUnavailableError(CodesetError, OSError):
    """A pinned source could not be fetched and is not in the cache."""

    code = "SOURCE_UNAVAILABLE"


class SourceDigestError(CodesetError, ValueError):
    """A source file is not the pinned one: its SHA-256 differs."""

    code = "SOURCE_DIGEST_MISMATCH"


class SourceFormatError(CodesetError, ValueError):
    """A source file does not have the layout its importer knows."""

    code = "SOURCE_FORMAT"


class MalformedMessageError(CodesetError, ValueError):
    """The bytes of a request are not the protobuf message that the method takes."""

    code = "MALFORMED_MESSAGE"


class MessageTooLargeError(CodesetError, ValueError):
    """A request of more bytes than the server's documented limit."""

    code = "MESSAGE_TOO_LARGE"


class TooManyRequestsError(CodesetError, RuntimeError):
    """The server is answering as many requests as it accepts at once."""

    code = "TOO_MANY_REQUESTS"


class UnauthenticatedError(CodesetError, PermissionError):
    """The server wants a bearer token, and the call has none or one that it does not know."""

    code = "UNAUTHENTICATED"


class PermissionDeniedError(CodesetError, PermissionError):
    """The call's token is known and does not allow this method."""

    code = "PERMISSION_DENIED"


class ServiceUnavailableError(CodesetError, ConnectionError):
    """No server answers at the address, or it is shutting down. Retrying is safe: every method only reads."""

    code = "SERVICE_UNAVAILABLE"


class DeadlineExceededError(CodesetError, TimeoutError):
    """The answer did not come within the time that the caller gave."""

    code = "DEADLINE_EXCEEDED"


class InternalError(CodesetError, RuntimeError):
    """The server failed in a way that is its own fault; its log has the particulars under the request id."""

    code = "INTERNAL_ERROR"


class RpcFailedError(CodesetError, RuntimeError):
    """A call failed with a gRPC status that this service does not use: the text gives it."""

    code = "RPC_FAILED"


class AddressUnavailableError(CodesetError, OSError):
    """The server cannot listen at the address: taken, not of this machine, or not allowed."""

    code = "ADDRESS_UNAVAILABLE"


def all_errors() -> list[type[CodesetError]]:
    """Return every error class, in order of its code."""
    return sorted(CodesetError.__subclasses__(), key=lambda cls: cls.code)
