"""A trained checkpoint on photos of any kind: `ssdd segment`."""
