"""Scores of recognized text: normalizers, word and character errors, term recall, intervals."""
