"""The methods in czslkit, one module for each. They are registered like the methods of other plugins."""
