"""The uploads folder: what belongs to it, how it is copied, how two states differ, and how one becomes the other."""
