"""What the client raises.

ClientError               also as it is, for an answer that is not this service's
├── ConnectionFailed      there was no answer: no connection, or none in time
└── ProblemError          the server said no: its problem document (RFC 9457)

An image that cannot be decoded raises nothing: it has a Result with an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from repvgg_client.results import ImageFault


class ClientError(Exception):
    """Root of everything the client raises on purpose."""


class ConnectionFailed(ClientError):
    """There was no answer within the time."""


class ProblemError(ClientError):
    """`code` is stable and meant for programs, `detail` for people; `request_id` finds the request in the server's log.
    `faults`: one for each image, if the server told them apart.

    A reply that is no problem document, as of a proxy, has the code `http_<status>`.
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
        """Of any response that is not 200. Raises ValueError, KeyError, TypeError for a document that is none."""
        request_id = response.headers.get("X-Request-ID")
        if response.headers.get("Content-Type") != "application/problem+json":
            return cls(response.status_code, f"http_{response.status_code}", response.text[:200], request_id)
        problem = response.json()
        faults = [ImageFault(fault["code"], fault["detail"]) for fault in problem.get("errors", ())]
        return cls(response.status_code, problem["code"], problem["detail"], request_id, faults)
