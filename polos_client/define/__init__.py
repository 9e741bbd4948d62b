"""What an author writes: agents, tools, stop conditions and workflows."""
