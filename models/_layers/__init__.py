"""Parts that several networks share. Not members of the zoo."""
