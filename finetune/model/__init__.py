"""Granite Speech itself: its forward pass, its prompt, its adapters."""
