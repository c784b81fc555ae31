"""Models built of the attention layers."""
