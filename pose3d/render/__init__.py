"""What do the results look like? Overlays on the footage (`overlay`) and the scene in 3D (`scene`)."""
