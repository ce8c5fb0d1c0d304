"""The parts of `scripts/build_nano.py` (the model and its stages), of its texts and of `scripts/build_audio.py`."""
