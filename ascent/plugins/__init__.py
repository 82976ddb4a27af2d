"""The same methods inside other engines, and the table of what runs where."""
