"""The texts of the embedded base: sentences in seven languages and a phrase book."""
