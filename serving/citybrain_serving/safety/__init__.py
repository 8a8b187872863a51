"""Who may do what, how much of it, and a record of it that cannot be altered unnoticed."""
