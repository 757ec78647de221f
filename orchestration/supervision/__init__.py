"""The streams: starting, judging, restarting and repairing them, and replays."""
