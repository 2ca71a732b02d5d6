"""What a crash would take, kept until it is saved."""
