"""The form of a transcription request, for the OpenAPI description."""

from typing import Any

from finetune.serving.parameters import FORMATS, GRANULARITIES

_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "audio of any format"},
                        "model": {**_TEXT, "description": "a name of /v1/models; the first one by default"},
                        "response_format": {"type": "string", "enum": [*FORMATS], "default": "json"},
                        "language": {**_TEXT, "description": "spoken language, such as fr"},
                        "languages[]": {**_TEXTS, "description": "possible spoken languages"},
                        "prompt": {**_TEXT, "description": "replaces the instruction of the model"},
                        "keywords[]": {**_TEXTS, "description": "expected words"},
                        "hotwords": {**_TEXT, "description": "expected words, with commas between them"},
                        "timestamp_granularities[]": {"type": "array", "items": {"enum": [*GRANULARITIES]}},
                        "stream": {"type": "boolean", "default": False},
                        "temperature": {"type": "number", "enum": [0]},
                        "chunking_strategy": {**_TEXT, "enum": ["auto"]},
                        "target_language": {**_TEXT, "default": "en", "description": "of a translation"},
                        "deadline": {"type": "number", "description": "seconds"},
                    },
                }
            }
        },
    }
}
