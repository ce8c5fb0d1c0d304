"""Modules of `bench_train.py` and `bench_shards.py`."""
