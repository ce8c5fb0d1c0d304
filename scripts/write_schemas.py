"""Writes the JSON schemas of the result files to docs/schemas/. Run: python scripts/write_schemas.py"""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from finetune.core.files import write_text
from finetune.core.model_limits import ModelLimits
from finetune.core.recipe import ResolvedRecipe
from finetune.data.style import StyleFile
from finetune.evaluation.compare_result import CompareResult
from finetune.evaluation.score import ScoreResult
from finetune.exporting.adaptation import Adaptation
from finetune.metrics.curve_results import CurveResult
from finetune.metrics.result_rows import SuspiciousReference, UtteranceResult
from finetune.metrics.results import EvaluationResults, RunSummary
from finetune.planning.result import CheckResult

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"
SCHEMAS: dict[str, TypeAdapter[Any]] = {
    "adaptation": TypeAdapter(Adaptation),
    "check": TypeAdapter(CheckResult),
    "comparison": TypeAdapter(CompareResult),
    "curve": TypeAdapter(CurveResult),
    "evaluation_metrics": TypeAdapter(EvaluationResults),
    "model_limits": TypeAdapter(ModelLimits),
    "resolved_recipe": TypeAdapter(ResolvedRecipe),
    "run_summary": TypeAdapter(RunSummary),
    "scores": TypeAdapter(ScoreResult),
    "style": TypeAdapter(StyleFile),
    "suspicious_reference": TypeAdapter(SuspiciousReference),
    "utterance": TypeAdapter(UtteranceResult),
}


def json_schemas() -> dict[str, str]:
    """The JSON schema of each result file, by file name."""
    return {
        f"{name}.schema.json": json.dumps(adapter.json_schema(), indent=2, ensure_ascii=False) + "\n"
        for name, adapter in SCHEMAS.items()
    }


def main() -> None:
    for name, text in json_schemas().items():
        write_text(FOLDER / name, text)
        print(FOLDER / name)


if __name__ == "__main__":
    main()
