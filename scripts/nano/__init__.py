"""The parts of `scripts/build_nano.py`: text, speech, encoder stage, decoder stage."""
