"""Feature maps: pure functions of the tokens, and the forms in which they are handed to the ops."""
