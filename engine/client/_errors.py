"""From the status of a failed call back to the error the server raised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from .. import errors
from .._pb.codeset.v1.grouping_pb2 import DrgResult
from .._pb.codeset.v1.terminology_pb2 import CodeValidation
from ..rpc import DOMAIN, REQUEST_ID, STATUS_DETAILS

__all__ = ["error_of", "raise_for_error"]

_CUT_OFF = "CANCELLED"
"""What a server that ends says to calls that it has not begun. What is cancelled here has another text."""

_CLASSES = {cls.code: cls for cls in errors.all_errors()}


def error_of(failed: Any, target: str, method: str, sent: Iterable[tuple[str, str]] = ()) -> errors.CodesetError:
    """Return the error that a failed call stands for: the server's own if it named one, else one by the
    gRPC status. Its ``request_id`` is the one that the server answered with, else the one in ``sent``, the metadata
    of the call.

    ``failed`` is a ``grpc.RpcError`` with the methods of a finished call, sync or async.
    """
    # By pairs: grpc.aio's Metadata has keys() as well, and in grpcio 1.76 dict() fails over them.
    metadata = dict(iter(failed.trailing_metadata() or ()))
    error = _error_of(failed, target, method, metadata)
    error.request_id = str(metadata.get(REQUEST_ID) or dict(sent).get(REQUEST_ID, ""))
    return error


def _error_of(failed: Any, target: str, method: str, metadata: Mapping[str, Any]) -> errors.CodesetError:
    code: grpc.StatusCode = failed.code()
    details: str = failed.details() or ""
    info = _info(metadata.get(STATUS_DETAILS))
    if info is not None:
        cls = _CLASSES.get(info.reason)
        if cls is not None:
            return cls(details, field=info.metadata.get("field", ""))
        return errors.RpcFailedError(f"{method}: {info.reason}: {details}. This client is older than the server.")
    if code is grpc.StatusCode.UNAVAILABLE or (code is grpc.StatusCode.CANCELLED and details == _CUT_OFF):
        return errors.ServiceUnavailableError(
            f"{method}: no answer from {target} ({details}). Is the server running there "
            "(`codeset-engine serve`), and "
            "is the address right? The call was tried several times; trying again later is safe."
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineExceededError(
            f"{method}: no answer from {target} in time ({details}). Give a longer timeout, or send "
            "fewer items at once."
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        # Refused by gRPC itself, before the server could say why.
        return errors.MessageTooLargeError(f"{method}: {details}. Send fewer items in one request.")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return errors.RpcFailedError(
            f"{method}: what answers at {target} does not have this method. Is it a codeset-engine "
            "server, and as new "
            "as this client?"
        )
    request_id = metadata.get(REQUEST_ID)
    at = f", request id {request_id}" if request_id else ""
    return errors.RpcFailedError(f"{method}: {target} answered {code.name}: {details or 'no details'}{at}.")


def raise_for_error(result: DrgResult | CodeValidation) -> None:
    """Raise what is wrong with one item of a batch, as the unary method would have; return if nothing is."""
    if result.HasField("error"):
        error = result.error
        raise _CLASSES.get(error.code, errors.RpcFailedError)(error.message, field=error.field)


def _info(details: str | bytes | None) -> error_details_pb2.ErrorInfo | None:
    if not isinstance(details, bytes):
        return None
    try:
        status = status_pb2.Status.FromString(details)
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                return info
    except DecodeError:
        pass
    return None
