"""Things that a user adds without touching a file of the package."""
