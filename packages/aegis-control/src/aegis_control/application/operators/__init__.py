"""What operators see and ask for: verbs, the console, explain, history. It looks at what leads, which knows nothing of it."""
