"""The small world of the demo model: everything it reads is written here, from a seed."""
