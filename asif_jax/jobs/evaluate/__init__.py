"""How good a model is on a labelled or captioned set."""
