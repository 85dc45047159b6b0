"""The use cases: request, serve a group, serve resources, be a member. They own the ports."""
