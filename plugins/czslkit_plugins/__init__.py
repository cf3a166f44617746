"""The methods that ship with czslkit, one module each, registered as any plugin is."""
