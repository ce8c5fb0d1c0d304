"""Modules of `bench_train.py`."""
