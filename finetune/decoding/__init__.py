"""Audio to text: greedy and speculative decoding, drafts, subtitles."""
