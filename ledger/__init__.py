"""Every answer that was given, in memory and in the database, before its first byte is sent."""
