"""Workflows: functions of users whose steps are durable."""
