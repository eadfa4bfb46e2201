"""`python -m asif_jax` is the command `asif-jax`."""

from asif_jax.cli import main

if __name__ == "__main__":
    main()
