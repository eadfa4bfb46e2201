"""Embedding: data through the encoders into a sink."""
