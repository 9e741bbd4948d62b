"""Agents: what the service has loaded, and the loop that runs one."""
