"""What a stranger adds from outside the package, without touching a file of it."""
