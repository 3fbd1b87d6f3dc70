"""Makes the demo model: synthetic dialogues, training, export and evaluation."""
