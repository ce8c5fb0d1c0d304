"""The web application: routes of OpenAI's API, health, metrics, corrections, the page."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import Scope

from finetune.core.languages import SPEECH_LANGUAGES, TRANSLATION_TARGETS
from finetune.core.serve_options import ServeOptions
from finetune.serving import corrections, metrics
from finetune.serving.engine import Engine
from finetune.serving.errors import ApiError, on_api_error, on_http_error
from finetune.serving.guard import Guard
from finetune.serving.memory import give_back_regularly
from finetune.serving.models import Models, ServedModel
from finetune.serving.openapi import FORM
from finetune.serving.realtime import Realtime
from finetune.serving.transcriptions import Transcriptions
from finetune.version import __version__

PAGE = Path(__file__).parent / "page"


def create_app(models: Models, options: ServeOptions) -> FastAPI:
    """The application of a server. `app.state.gate` counts its requests, `app.state.scheduler` has its windows."""
    figures = metrics.Metrics()
    engine = Engine(options, figures)
    handler = Transcriptions(models, engine, options, figures)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        housekeeping = asyncio.create_task(give_back_regularly())
        yield
        housekeeping.cancel()
        engine.close()

    app = FastAPI(title="finetune serve", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.gate, app.state.scheduler = handler.gate, engine.scheduler
    app.add_middleware(Guard, options=options)
    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(HTTPException, on_http_error)
    figures.gauge(
        "finetune_requests_inside", "Requests that are uploaded, waiting or transcribed", lambda: handler.gate.inside
    )
    figures.gauge("finetune_waiting_windows", "Windows that wait for a batch", lambda: engine.scheduler.load()[0])
    figures.gauge("finetune_waiting_audio_seconds", "Audio that waits for a batch", lambda: engine.scheduler.load()[1])
    _add_transcriptions(app, handler)
    _add_realtime(app, Realtime(models, engine, options, handler.gate))
    _add_models(app, models)
    _add_state(app, handler, engine, figures, options)
    _add_corrections(app, options)
    app.router.default = _Page(directory=PAGE, html=True)  # a mount would answer 404 for a wrong method
    return app


class _Page(StaticFiles):
    """The files of the page, for every path that is no route. A POST to one of OpenAI's API is no wrong method."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD") and path != ".":
            raise HTTPException(404)
        return await super().get_response(path, scope)


def _add_transcriptions(app: FastAPI, handler: Transcriptions) -> None:
    @app.post("/v1/audio/transcriptions", openapi_extra=FORM, response_class=Response)
    async def transcribe(request: Request) -> Response:
        """Transcribes a file."""
        return await handler.handle(request, "transcribe")

    @app.post("/v1/audio/translations", openapi_extra=FORM, response_class=Response)
    async def translate(request: Request) -> Response:
        """Translates the speech in a file, into English or `target_language`."""
        return await handler.handle(request, "translate")


def _add_realtime(app: FastAPI, handler: Realtime) -> None:
    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        await handler.handle(socket)

    @app.get("/v1/realtime", include_in_schema=False)
    async def no_websocket() -> None:
        message = "this path is a websocket; a proxy must pass on the headers Upgrade and Connection"
        raise ApiError(426, message, None, "no_websocket", {"Upgrade": "websocket"})


def _add_models(app: FastAPI, models: Models) -> None:
    created = int(time.time())

    def describe(model: ServedModel) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": created,
            "owned_by": "finetune",
            "parent": model.base or None,
            "keyword_prompts": model.limits.keyword_prompts,
        }

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """The base and its adapters."""
        return {"object": "list", "data": [describe(model) for model in models.by_name.values()]}

    @app.get("/v1/models/{name:path}")
    async def show_model(name: str) -> dict[str, Any]:
        return describe(models.find(name))


def _add_state(
    app: FastAPI, handler: Transcriptions, engine: Engine, figures: metrics.Metrics, options: ServeOptions
) -> None:
    @app.head("/health", include_in_schema=False)  # as some monitors ask
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server works; a server that does not should be started again."""
        if not engine.scheduler.alive:
            raise ApiError(503, "the thread of the model has ended; start the server again", None, "dead")
        return {"status": "ok", "version": __version__}

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Whether the server takes requests."""
        if handler.gate.draining or not engine.scheduler.alive:
            raise ApiError(503, "the server takes no more requests", None, "not_ready")
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response)
    async def show_metrics() -> Response:
        """Figures for Prometheus."""
        return Response(figures.text(), media_type=metrics.CONTENT_TYPE)

    @app.get("/v1/server")
    async def server() -> dict[str, Any]:
        """What the page needs to know."""
        return {
            "corrections": bool(options.corrections),
            "languages": SPEECH_LANGUAGES,
            "translation_targets": TRANSLATION_TARGETS,
            "max_upload": options.max_upload,
            "max_audio": options.max_audio,
        }


def _add_corrections(app: FastAPI, options: ServeOptions) -> None:
    if options.corrections:
        app.include_router(corrections.routes(Path(options.corrections), options))
        return

    @app.post("/v1/corrections", include_in_schema=False)
    async def refuse() -> None:
        raise ApiError(403, "this server saves no corrections; start it with --corrections DIR", None, "no_corrections")
