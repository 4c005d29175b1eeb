"""The errors that the client raises.

ClientError               raised itself for an answer that is not from a repvgg server
├── ConnectionFailed      no answer: the connection failed or the request timed out
└── ProblemError          the server rejected the request: its problem document (RFC 9457)

An image that cannot be decoded raises no error: its Result has one.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from repvgg_client.results import ImageFault


class ClientError(Exception):
    """Base class of the errors above."""


class ConnectionFailed(ClientError):
    """The connection failed, or there was no answer in time."""


class ProblemError(ClientError):
    """The server rejected the request.

    `code` is stable and meant for programs, `detail` is for people, and `request_id` identifies the request in the
    server's log. `faults` has one entry per image if the server reported them separately.

    A response that is not a problem document, such as a proxy's, has the code `http_<status>`.
    """

    def __init__(
        self, status: int, code: str, detail: str, request_id: str | None, faults: Sequence[ImageFault] = ()
    ) -> None:
        super().__init__(f"{status} {code}: {detail} (request {request_id})")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.faults = faults

    @classmethod
    def of(cls, response: httpx.Response) -> ProblemError:
        """From any response other than 200. Raises ValueError, KeyError or TypeError for an invalid document."""
        request_id = response.headers.get("X-Request-ID")
        if response.headers.get("Content-Type") != "application/problem+json":
            return cls(response.status_code, f"http_{response.status_code}", response.text[:200], request_id)
        problem = response.json()
        faults = [ImageFault(fault["code"], fault["detail"]) for fault in problem.get("errors", ())]
        return cls(response.status_code, problem["code"], problem["detail"], request_id, faults)
