"""The only modules that change the world. What they did is on disk when they return."""
