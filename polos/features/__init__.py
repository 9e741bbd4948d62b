"""Where programs for the original SDK find `events`."""
