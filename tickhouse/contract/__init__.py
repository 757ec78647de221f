"""What goes over the wire: names and units, and which messages are ticks."""
