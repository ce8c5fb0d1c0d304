"""vLLM: the merged folder, or its base with a LoRA adapter (`adapter` of the request)."""

import os

from runner_protocol import serve

CONTEXT = 2048


def load(request):
    """The engine, in float32, and the adapter."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in this process: its errors and memory are seen
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GB; on a CPU the default is most of the memory
    from vllm import LLM
    from vllm.lora.request import LoRARequest

    adapter, options = None, {}
    if request.get("adapter"):
        adapter = LoRARequest("adapter", 1, request["adapter"])
        options = {"enable_lora": True, "max_lora_rank": request["max_lora_rank"]}
    engine = LLM(
        model=request["model"],
        dtype="float32",
        enforce_eager=True,
        max_model_len=CONTEXT,
        limit_mm_per_prompt={"audio": 1},
        skip_mm_profiling=True,
        **options,
    )
    return engine, adapter


def transcribe(loaded, samples, clip, limit):
    """Greedy text."""
    from vllm import SamplingParams

    engine, adapter = loaded
    outputs = engine.generate(
        {"prompt": clip["prompt"], "multi_modal_data": {"audio": [(samples, 16000)]}},
        SamplingParams(temperature=0.0, max_tokens=limit),
        lora_request=adapter,
        use_tqdm=False,
    )
    return outputs[0].outputs[0].text.strip()


if __name__ == "__main__":
    from importlib.metadata import packages_distributions

    serve(load, transcribe, packages_distributions()["vllm"][:1])
