"""What a person reads about a run: plain values in, one page of HTML out."""
