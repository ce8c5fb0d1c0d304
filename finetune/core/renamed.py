"""Recipe keys of earlier versions and their current names; names of other tools."""

RENAMED = {"train.shrink": "train.interpolate", "augment.join": "augment.concat", "data.lowercase": "data.text.case"}
NEW_VALUES = {"data.lowercase": "lower converts to lower case, keep (the default) changes nothing"}

# Names of a setting or an option that other tools have, and this one does not.
DEVICE_NAMES = ("device", "devices", "device_map", "gpu", "gpus", "gpu_id", "cuda", "cpu", "use_cpu", "no_cuda")
DEVICE_HINT = (
    "there is no setting for the device: a GPU that torch sees is used; the environment variable CUDA_VISIBLE_DEVICES "
    "chooses one by its number (CUDA_VISIBLE_DEVICES=1), or the CPU if it is empty (CUDA_VISIBLE_DEVICES=)"
)


def is_device(name: str) -> bool:
    """Whether a name of an option or a dotted key is one of a device."""
    return name.lstrip("-").replace("-", "_").split(".")[-1].lower() in DEVICE_NAMES
