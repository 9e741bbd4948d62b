"""What people would use instead, each a server in a process of its own."""
