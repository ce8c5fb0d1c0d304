"""Audio and text to batches: manifests, corpora, features, loading."""
