"""What is asked about what: samples, their steps and prompts, clips, files, splits and checks."""
