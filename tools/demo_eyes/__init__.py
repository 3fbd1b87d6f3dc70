"""The demo model's eyes: a small vision tower and projector, trained on drawn shapes."""
