"""Training of the HQ head on a frozen SAM: loader, batch, loss, loop."""
