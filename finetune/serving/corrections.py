"""The route that saves corrected transcripts."""

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from finetune.core.errors import FinetuneError
from finetune.core.files import is_disk_full
from finetune.core.serve_options import ServeOptions
from finetune.core.terminal import visible
from finetune.serving.correction_store import Corrections, CorrectionStore, SavedCorrections, parse_corrections
from finetune.serving.errors import MAX_MESSAGE, ApiError, to_api_error
from finetune.serving.uploads import Form, Upload, read_form

FIELD = "corrections"
MAX_FIELD = 10 << 20  # bytes; the texts of more than ten hours of speech, twice
RETRY_AFTER = 5  # seconds
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", FIELD],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "the audio as it was transcribed",
                        },
                        FIELD: {
                            "type": "string",
                            "description": "JSON",
                            "contentSchema": Corrections.model_json_schema(),
                        },
                    },
                }
            }
        },
    }
}


def routes(folder: Path, options: ServeOptions) -> APIRouter:
    """The routes that save corrections.

    Args:
        folder: where they are saved.
        options: limits of uploads.

    Raises:
        DataError: the folder cannot be written.
    """
    router, store, one_at_a_time = APIRouter(), CorrectionStore(folder), asyncio.Lock()

    @router.post("/v1/corrections", openapi_extra=FORM)
    async def save(request: Request) -> SavedCorrections:
        """Saves the audio and the segments that a person has corrected, for `data.train` of a recipe."""
        gate, form = request.app.state.gate, None
        gate.enter(lambda: RETRY_AFTER)
        try:
            form = await read_form(request, options, MAX_FIELD)
            upload, corrections = _read(form)
            async with one_at_a_time:
                return await run_in_threadpool(store.save, upload, corrections, options.max_audio)
        except OSError as error:
            if not is_disk_full(error):
                raise to_api_error(error) from error
            raise ApiError(507, "the disk of the server is full; nothing was saved", None, "disk_full") from error
        except Exception as error:
            raise to_api_error(error) from error
        finally:
            gate.leave()
            if form:
                form.close()

    return router


def _read(form: Form) -> tuple[Upload, Corrections]:
    """The audio and the corrections of a form. Raises ApiError if something is missing or wrong."""
    if form.upload is None:
        raise ApiError(422, "`file` is missing; send the audio as a file", "file", "missing_file")
    values = form.fields.get(FIELD, [])
    if len(values) != 1 or len(form.fields) != 1:
        raise ApiError(422, f"the form must have `file` and one field `{FIELD}`", FIELD, "wrong_fields")
    try:
        return form.upload, parse_corrections(values[0])
    except FinetuneError as error:
        raise ApiError(400, visible(str(error))[:MAX_MESSAGE], FIELD, "invalid_corrections") from error
