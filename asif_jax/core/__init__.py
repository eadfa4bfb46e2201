"""The paper: arrays in, arrays out."""
