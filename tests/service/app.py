"""An example service around a generated program: one model, one image at a time, a bounded queue.

    ACCELERATED=accelerated.py MODEL=hub-id-or-folder \
        uvicorn tests.service.app:from_environment --factory

A request whose client hangs up ends within a denoising step.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import os
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(max_length=2000)]
Side = Annotated[int, Field(ge=32, le=1024, multiple_of=8)]


class Wanted(BaseModel):
    """One request; a list of prompts is a batch. What is left out is as the program measured it."""

    model_config = ConfigDict(extra="forbid")

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=4)]
    negative_prompt: Text | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    height: Side | None = None
    width: Side | None = None
    steps: Annotated[int, Field(ge=1, le=100)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=30)] | None = None


class Cancelled(Exception):
    """Raised from a step callback: nobody waits for this image any more."""


class Service:
    """A program, its pipeline, and the one thread that runs it. Its queue is the order."""

    def __init__(self, program: Path, model: str | None) -> None:
        spec = importlib.util.spec_from_file_location("accelerated", program)
        assert spec is not None
        assert spec.loader is not None
        self.program = importlib.util.module_from_spec(spec)
        sys.modules["accelerated"] = self.program
        spec.loader.exec_module(self.program)
        self.model = model or self.program.MODEL_ID
        self.thread = ThreadPoolExecutor(1)
        self.counts = {"step": 0, "of": 0, "answered": 0, "cancelled": 0, "unfinished": 0}

    def start(self) -> None:
        """Load, and make every measured shape once: that compiles and allocates what they need."""
        pipe = self.program.load_pipeline(model=self.model)
        self.pipe = self.program.accelerate(pipe)
        for height, width, batch in self.program.SHAPES:
            prompt = [""] * batch if batch > 1 else ""
            self.program.generate(self.pipe, prompt, seed=0, height=height, width=width)

    def answer(self, wanted: Wanted, stop: threading.Event) -> list[bytes]:
        """The images as PNG; raises Cancelled within a step once ``stop`` is set."""

        def at_step(pipe: Any, step: int, _time: Any, _tensors: dict[str, Any]) -> None:
            self.counts |= {"step": step + 1, "of": pipe.num_timesteps}
            if stop.is_set():
                raise Cancelled

        if stop.is_set():
            raise Cancelled
        options = wanted.model_dump(exclude={"steps"})
        images = self.program.generate(
            self.pipe, **options, num_inference_steps=wanted.steps, callback_on_step_end=at_step
        )
        return [_png(image) for image in images]


def _png(image: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def create_app(program: Path, model: str | None = None, queue: int = 16) -> FastAPI:
    """The application; ``queue`` is how many requests may be unfinished at a time."""
    service = Service(program, model)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # The port opens when this is done, so whoever is answered meets a warm pipeline.
        await asyncio.wrap_future(service.thread.submit(service.start))
        yield
        service.thread.shutdown(cancel_futures=True)

    app = FastAPI(title="accelerated", lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", **service.counts}

    @app.post("/images")
    async def images(wanted: Wanted, request: Request) -> Response:
        if service.counts["unfinished"] >= queue:
            raise HTTPException(503, f"{queue} requests are waiting", {"Retry-After": "1"})
        service.counts["unfinished"] += 1
        stop = threading.Event()
        job = asyncio.wrap_future(service.thread.submit(service.answer, wanted, stop))
        try:
            while not (await asyncio.wait({job}, timeout=0.05))[0]:
                if await request.is_disconnected():
                    stop.set()
            pictures = job.result()
        except Cancelled:
            service.counts["cancelled"] += 1
            return Response(status_code=499)  # nobody reads it; the log does
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        finally:
            # Also where the server itself gives up on the request.
            stop.set()
            service.counts["unfinished"] -= 1
        service.counts["answered"] += 1
        if isinstance(wanted.prompt, str):
            return Response(pictures[0], media_type="image/png")
        return JSONResponse({"images": [base64.b64encode(p).decode() for p in pictures]})

    return app


def from_environment() -> FastAPI:
    """For ``uvicorn --factory``: ACCELERATED (the program), MODEL and QUEUE."""
    environment = os.environ
    program = Path(environment.get("ACCELERATED", "accelerated.py"))
    return create_app(program, environment.get("MODEL"), int(environment.get("QUEUE", "16")))
