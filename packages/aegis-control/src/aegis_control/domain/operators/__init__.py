"""What is told to people: alarms, checks, the story of a request, the timeline of failovers."""
