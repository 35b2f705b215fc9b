"""What the chain makes of our answers: epochs, followed from their window to their rewards, and looks at topics."""
