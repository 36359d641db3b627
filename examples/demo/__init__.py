"""The demonstration: an app of its own, a disaster, and a restore, with proofs."""
