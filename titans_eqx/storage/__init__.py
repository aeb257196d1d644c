"""Files that survive crashes, and descriptions of what is in them."""
