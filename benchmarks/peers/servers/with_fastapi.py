"""Plain FastAPI: each request in a thread of its own, no batches."""

from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from benchmarks.peers.servers.work import HOST, PORT, WORKERS, Work
from models.errors import ImageError


@asynccontextmanager
async def lifespan(app):
    app.state.work = Work()
    yield


app = FastAPI(lifespan=lifespan)


def classify(work: Work, encoded: bytes) -> dict:
    try:
        return work.answer(work.logits(work.pixels(encoded)[None])[0])
    except ImageError as error:
        raise HTTPException(422, error.detail) from error


@app.post("/classify")
async def post(request: Request) -> JSONResponse:
    return JSONResponse(await run_in_threadpool(classify, app.state.work, await request.body()))


if __name__ == "__main__":
    name = "benchmarks.peers.servers.with_fastapi:app"
    uvicorn.run(name, host=HOST, port=PORT, workers=WORKERS, access_log=False, log_level="warning")
