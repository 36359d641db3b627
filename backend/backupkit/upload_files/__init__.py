"""The uploads folder: selection, copying, comparison of two states, and the change from one to the other."""
