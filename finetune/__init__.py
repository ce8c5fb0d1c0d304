"""Fine-tuning and domain adaptation for IBM Granite Speech."""

__version__ = "0.1.0"
