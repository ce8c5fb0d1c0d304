"""What other recognizers have heard, or hear now: their files, Whisper's engines, transcription endpoints."""
