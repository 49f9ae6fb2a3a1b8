"""Checkpoints, the preprocessing contract, atomic files, workarounds of the stack."""
