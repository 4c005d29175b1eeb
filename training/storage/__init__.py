"""Where runs read and write: whole files, and ModelArts' folders. Every room of training may import it."""
