"""What the training loop is made of: the loss, checkpoints, tracking."""
