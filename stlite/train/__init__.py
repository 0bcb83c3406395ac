"""The two stages of training; this room alone imports torch, trl and unsloth."""
