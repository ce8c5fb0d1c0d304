"""The inference engines that `finetune verify` runs, and what each needs."""

from dataclasses import dataclass

MERGED, GGUF = "merged", "gguf"


@dataclass(frozen=True)
class Engine:
    """An engine: its runner is `runners/run_RUNNER.py`, its packages are in `requirements/NAME.txt`.

    Attributes:
        runner: Name of the runner.
        package: Import name by which an environment is recognized.
        reads: What the engine reads: the merged folder, or GGUF files made from it.
        own_environment: Whether it needs an environment of its own; else it runs in that of the toolkit.
    """

    runner: str
    package: str
    reads: str = MERGED
    own_environment: bool = True


ENGINES = {
    "transformers": Engine("transformers", "transformers", own_environment=False),
    "vllm": Engine("vllm", "vllm"),
    "mlx": Engine("mlx", "mlx_audio"),
    "llamacpp": Engine("llamacpp", "xllamacpp", reads=GGUF),
}
