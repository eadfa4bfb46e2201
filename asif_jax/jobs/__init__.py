"""What the command and other programs ask for, from data to a result."""
