"""The layer under review: its fields, its look, and decisions that are saved at once."""
