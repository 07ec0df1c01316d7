"""Answers that both doors give."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response, StreamingResponse

from folkmoot_core.document import SessionReport
from folkmoot_runtime.conductor.evidence import Evidence


def reports_answer(reports: list[SessionReport]) -> Response:
    """`{"sessions": […]}`."""
    return JSONResponse({"sessions": [report.model_dump(mode="json") for report in reports]})


async def evidence_answer(evidence: Evidence) -> Response:
    """The tar as a stream."""
    return StreamingResponse(await evidence.stream(), media_type="application/x-tar")
