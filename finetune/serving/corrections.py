"""Corrected transcripts."""

from pathlib import Path

from fastapi import APIRouter, Request

from finetune.core.serve_options import ServeOptions
from finetune.serving.errors import ApiError


def routes(folder: Path, options: ServeOptions) -> APIRouter:
    """The routes that save corrections.

    Args:
        folder: where they are saved.
        options: limits of uploads.
    """
    router = APIRouter()

    @router.post("/v1/corrections")
    async def save(request: Request) -> dict[str, str]:
        raise ApiError(501, f"corrections are not built yet ({folder.name}, {options.max_upload})")

    return router
