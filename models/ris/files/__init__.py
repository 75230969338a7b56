"""Files of scenes: layout, reading, splitting, writing."""
