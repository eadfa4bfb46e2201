"""How pairs become scores, a method a file, and what chooses and judges methods."""
