"""What a caller and an agent's author use; `from polos import ...` shows the public names."""
