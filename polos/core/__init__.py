"""What workflows are made of, where the original SDK has it."""
