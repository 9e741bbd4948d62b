"""Memory of sessions, which is not built yet; its names can be imported."""
