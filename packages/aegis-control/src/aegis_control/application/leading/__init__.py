"""What leads: it registers instances, places resources, fails them over, and makes agree what was left half done."""
